//! Text cells that a spreadsheet must not run as formulas.

use std::borrow::Cow;

/// The cell as it may be opened in a spreadsheet: a `'` is put before a text that would be run as a formula
/// there. <https://owasp.org/www-community/attacks/CSV_Injection>
pub(crate) fn defused(text: &str) -> Cow<'_, str> {
    if is_risky(text) {
        Cow::Owned(format!("'{text}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Whether the first character that is not white space begins a formula, also in its full-width form, which
/// some spreadsheets take for the plain one; or the white space before it has a tab, carriage return or line
/// feed, behind which some begin a new cell.
fn is_risky(text: &str) -> bool {
    let rest = text.trim_start();
    let before = &text[..text.len() - rest.len()];
    before.contains(['\t', '\r', '\n']) || rest.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::equals("=1+1")]
    #[case::plus("+1")]
    #[case::minus("-1")]
    #[case::at("@SUM(A1)")]
    #[case::tab("\t=1")]
    #[case::tab_alone("\tx")]
    #[case::carriage_return("\rx")]
    #[case::line_feed("\nx")]
    #[case::spaces_before("   =1")]
    #[case::no_break_space_before("\u{a0}=1")]
    #[case::spaces_and_line_feed("  \n x")]
    #[case::full_width_equals("＝1")]
    #[case::full_width_plus("＋1")]
    #[case::full_width_minus("－1")]
    #[case::full_width_at("＠x")]
    #[case::known_album("+ (Plus)")]
    fn a_risky_cell_gets_an_apostrophe_and_keeps_its_text(#[case] text: &str) {
        assert_eq!(defused(text), format!("'{text}"));
    }

    #[rstest]
    #[case::empty("")]
    #[case::plain("Kind of Blue")]
    #[case::inside("a=b")]
    #[case::spaces_before(" x")]
    #[case::apostrophe("'74 Jailbreak")]
    #[case::line_feed_inside("a\n=b")]
    #[case::en_dash("– x")]
    #[case::quote("\"=1\"")]
    fn any_other_cell_stays_as_it_is(#[case] text: &str) {
        assert_eq!(defused(text), text);
    }

    proptest! {
        #[test]
        fn what_is_given_out_never_begins_a_formula(text in "\\PC{0,3}[\\s=+@-]{0,3}\\PC{0,8}") {
            prop_assert!(!is_risky(&defused(&text)));
        }
    }
}
