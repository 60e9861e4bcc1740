//! The rules that the API server checks, in CEL
//! (<https://kubernetes.io/docs/reference/using-api/cel/>), with the domain's texts.
//!
//! A wrong type (a text for a number) is refused by the API server's own words, before any rule; an
//! unknown field by its strict field validation, which `kubectl` asks for.

use domain::{GENRE_MAX_LEN, LIMIT_MAX, MIN_RATINGS_MAX, PRIOR_WEIGHT_MAX, TIMESTAMP_PATTERN, messages};
use kube::core::Rule;

/// The longest time to live: ten years.
const TTL_MAX: i64 = 315_360_000;
/// The longest deadline: a day.
const DEADLINE_MAX: i64 = 86_400;

/// CEL: whether `text` (an expression) is a time as the domain reads it. The pattern has its form, and
/// the format its days, of which February has 28 or 29.
fn is_timestamp(text: &str) -> String {
    format!("{text}.matches(r'{TIMESTAMP_PATTERN}') && !format.datetime().validate({text}).hasValue()")
}

pub(super) fn timestamp() -> Rule {
    Rule::new(is_timestamp("self")).message(messages::TIMESTAMP)
}

/// `from` before `to`; silent when one of them is no time, which its own rule says already.
pub(super) fn window() -> Rule {
    let (from, to) = (is_timestamp("self.from"), is_timestamp("self.to"));
    Rule::new(format!(
        "!has(self.from) || !has(self.to) || !({from}) || !({to}) || timestamp(self.from) < timestamp(self.to)"
    ))
    .message(messages::WINDOW)
    .field_path(".from")
}

pub(super) fn genre() -> Rule {
    Rule::new(format!(
        r"size(self) >= 1 && size(self) <= {GENRE_MAX_LEN} && !self.matches(r'\p{{Cc}}')"
    ))
    .message(messages::GENRE)
}

fn between(least: i64, most: i64, message: &str) -> Rule {
    Rule::new(format!("self >= {least} && self <= {most}")).message(message)
}

pub(super) fn min_ratings() -> Rule {
    between(0, i64::from(MIN_RATINGS_MAX), messages::MIN_RATINGS)
}

pub(super) fn limit() -> Rule {
    between(1, i64::from(LIMIT_MAX), messages::LIMIT)
}

pub(super) fn prior_weight() -> Rule {
    between(0, i64::from(PRIOR_WEIGHT_MAX), messages::PRIOR_WEIGHT)
}

pub(super) fn compression() -> Rule {
    Rule::new("self in ['none', 'gzip']").message(messages::COMPRESSION)
}

pub(super) fn time_to_live() -> Rule {
    between(
        0,
        TTL_MAX,
        "must be a whole number of seconds from 0 to 315360000",
    )
}

pub(super) fn active_deadline() -> Rule {
    between(
        1,
        DEADLINE_MAX,
        "must be a whole number of seconds from 1 to 86400",
    )
}

/// A name that is also a label's value: <https://kueue.sigs.k8s.io/docs/concepts/local_queue/>.
pub(super) fn queue_name() -> Rule {
    Rule::new("!format.dns1123Subdomain().validate(self).hasValue()")
        .message("must be a LocalQueue's name: at most 63 lower-case letters, digits, '-' and '.'")
}

pub(super) fn object_name() -> Rule {
    Rule::new("!format.dns1123Subdomain().validate(self).hasValue()")
        .message("must be an object's name: lower-case letters, digits, '-' and '.'")
}

pub(super) fn label_pairs() -> Rule {
    Rule::new(
        "self.all(key, !format.qualifiedName().validate(key).hasValue() \
         && !format.labelValue().validate(self[key]).hasValue())",
    )
    .message("must have labels' names as keys and labels' values as values")
}

pub(super) fn cancel_is_final() -> Rule {
    Rule::new("self || !oldSelf")
        .message("cannot be unset: a cancelled report has ended; create another PopularityReport")
}

/// A field that says what to export: changing it would make another report of this one. A rule of the
/// whole spec, because a rule of the field itself is not asked when the field comes or goes.
pub(super) fn fixed(field: &str, optional: bool) -> Rule {
    let unchanged = format!("self.{field} == oldSelf.{field}");
    let rule = if optional {
        format!("has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || {unchanged})")
    } else {
        unchanged
    };
    Rule::new(rule)
        .message("cannot be changed: create another PopularityReport for another export")
        .field_path(format!(".{field}"))
}
