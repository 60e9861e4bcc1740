//! `operator dead-letters`: what the operator could not use, looked at and sent again.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use servicebus::{
    Client, DEAD_LETTER_DESCRIPTION, DEAD_LETTER_REASON, Outcome, Outgoing, Peeked, Property, Received,
    SenderOptions,
};
use tokio::time::timeout;

use crate::clients;
use crate::config::{DeadLettersAction, DeadLettersArgs};

/// How many messages are asked for at once.
const PAGE: u16 = 100;
/// How long to wait for a message that is there: longer than the broker takes to hand it out, and shorter
/// than a lock that another holds on it.
const HAND_OUT: Duration = Duration::from_secs(10);
/// The longest that a message id may be
/// (<https://learn.microsoft.com/azure/service-bus-messaging/service-bus-quotas>), in characters.
const MESSAGE_ID_MAX: usize = 128;
/// The most messages that [`count`] counts.
pub const COUNTED_MAX: usize = 1_000;

/// The queue of dead letters.
pub fn of(queue: &str) -> String {
    format!("{queue}/$DeadLetterQueue")
}

/// Does what the arguments say.
///
/// # Errors
/// The broker failed, or there is no such message.
pub async fn run(args: DeadLettersArgs, out: &mut impl Write) -> Result<()> {
    let identity = clients::identity(&args.identity, None, Some(&args.servicebus), None)?;
    let client = clients::servicebus(&args.servicebus, identity.as_ref())?;
    let queue = &args.servicebus.servicebus_queue;
    let done = match &args.action {
        DeadLettersAction::List { limit } => list(&client, queue, *limit, out).await,
        DeadLettersAction::Show { id } => show(&client, queue, id, out).await,
        DeadLettersAction::Resubmit { id: Some(id), .. } => resubmit_one(&client, queue, id, out).await,
        DeadLettersAction::Resubmit { id: None, .. } => resubmit_all(&client, queue, out).await,
    };
    client.close().await;
    done
}

/// Lists at most `limit`, oldest first.
///
/// # Errors
/// The broker failed.
pub async fn list(client: &Client, queue: &str, limit: usize, out: &mut impl Write) -> Result<()> {
    let messages = peek(client, queue, limit).await?;
    if messages.is_empty() {
        writeln!(out, "no dead letters in {queue}")?;
        return Ok(());
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "SEQUENCE",
        "MESSAGE ID",
        "ENQUEUED",
        "DELIVERIES",
        "REASON",
        "DESCRIPTION",
    ]);
    for message in &messages {
        table.add_row([
            message.sequence_number.to_string(),
            printable(&message.message_id),
            message.enqueued_at.map(|at| at.to_string()).unwrap_or_default(),
            message.delivery_count.to_string(),
            printable(message.dead_letter_reason().unwrap_or_default()),
            printable(message.dead_letter_description().unwrap_or_default()),
        ]);
    }
    writeln!(out, "{}", table.trim_fmt())?;
    Ok(())
}

/// Shows one.
///
/// # Errors
/// The broker failed, or there is no such message.
pub async fn show(client: &Client, queue: &str, id: &str, out: &mut impl Write) -> Result<()> {
    let message = find(client, queue, id).await?;
    let optional = |text: &Option<String>| printable(text.as_deref().unwrap_or("-"));
    writeln!(out, "sequence number  {}", message.sequence_number)?;
    writeln!(out, "message id       {}", printable(&message.message_id))?;
    let enqueued = message
        .enqueued_at
        .map_or_else(|| "-".to_owned(), |at| at.to_string());
    writeln!(out, "enqueued         {enqueued}")?;
    writeln!(out, "deliveries       {}", message.delivery_count)?;
    writeln!(out, "content type     {}", optional(&message.content_type))?;
    writeln!(out, "subject          {}", optional(&message.subject))?;
    writeln!(out, "correlation id   {}", optional(&message.correlation_id))?;
    writeln!(out, "properties")?;
    for (name, value) in &message.application_properties {
        writeln!(out, "  {} = {}", printable(name), shown(value))?;
    }
    writeln!(out, "body, {} bytes", message.body.len())?;
    let body = match serde_json::from_slice::<serde_json::Value>(&message.body) {
        Ok(json) => serde_json::to_string_pretty(&json)?,
        Err(_) => printable(&String::from_utf8_lossy(&message.body)),
    };
    writeln!(out, "{body}")?;
    Ok(())
}

/// Sends a copy of one and removes it.
///
/// # Errors
/// The broker failed, there is no such message, or another has locked it. The dead letter is still there
/// unless the error says otherwise.
pub async fn resubmit_one(client: &Client, queue: &str, id: &str, out: &mut impl Write) -> Result<()> {
    let wanted = find(client, queue, id).await?.sequence_number;
    let before = peek(client, queue, usize::MAX).await?;
    let held = before
        .iter()
        .filter(|message| message.sequence_number <= wanted)
        .count();
    let sent = resubmit(
        client,
        queue,
        held,
        |message| message.sequence_number == wanted,
        1,
        out,
    )
    .await?;
    if sent == 0 {
        bail!(
            "dead letter {wanted} was not handed out: another receiver has locked it; try again in a minute"
        );
    }
    Ok(())
}

/// Sends copies of all that are there now and removes them.
///
/// # Errors
/// As for [`resubmit_one`].
pub async fn resubmit_all(client: &Client, queue: &str, out: &mut impl Write) -> Result<()> {
    let now = peek(client, queue, usize::MAX).await?;
    let Some(last) = now.iter().map(|message| message.sequence_number).max() else {
        writeln!(out, "no dead letters in {queue}")?;
        return Ok(());
    };
    let sent = resubmit(
        client,
        queue,
        now.len(),
        |message| message.sequence_number <= last,
        now.len(),
        out,
    )
    .await?;
    if sent < now.len() {
        bail!(
            "{} of {} dead letters were not handed out: another receiver has locked them; try again in a minute",
            now.len() - sent,
            now.len()
        );
    }
    Ok(())
}

/// Receives up to `held` dead letters at a time and resubmits up to `most` that are wanted; the rest goes back.
/// Says how many it were.
async fn resubmit(
    client: &Client,
    queue: &str,
    held: usize,
    wanted: impl Fn(&Received) -> bool,
    most: usize,
    out: &mut impl Write,
) -> Result<usize> {
    let receiver = client.receiver(&of(queue), u32::try_from(held).unwrap_or(u32::MAX));
    let sender = client.sender(queue, SenderOptions::default());
    let mut aside = Vec::new();
    let mut sent = 0;
    let work = async {
        while sent < most {
            let message = match timeout(HAND_OUT, receiver.recv()).await {
                Ok(message) => message?,
                Err(_) => return Ok(()),
            };
            if !wanted(&message) {
                aside.push(message);
                continue;
            }
            let copy = copy(&message);
            let id = copy.message_id.clone();
            let report = sender.send(vec![copy]).await;
            match report.outcomes.first() {
                Some(Outcome::Accepted) => {}
                Some(Outcome::Unknown(error) | Outcome::Refused(error)) => {
                    aside.push(message);
                    return Err(error.clone()).context("the copy was not accepted; the dead letter stays");
                }
                None => bail!("the broker said nothing about the copy; the dead letter stays"),
            }
            receiver.complete(&message).await.with_context(|| {
                format!(
                    "the copy was accepted as {id} and dead letter {} was not removed; run this again: duplicate \
                     detection drops the second copy",
                    message.sequence_number
                )
            })?;
            sent += 1;
            writeln!(
                out,
                "resubmitted {} as {}",
                message.sequence_number,
                printable(&id)
            )?;
        }
        Ok(())
    };
    let done = work.await;
    for message in aside {
        // it would come back by itself when its lock runs out
        if let Err(error) = receiver.abandon(&message).await {
            tracing::debug!(
                error = servicebus::chain(&error),
                "a dead letter was not given back"
            );
        }
    }
    sender.close().await;
    receiver.close().await;
    done.map(|()| sent)
}

/// The message as it is sent again, without what the broker wrote on it.
fn copy(message: &Received) -> Outgoing {
    let own = |name: &str| ![DEAD_LETTER_REASON, DEAD_LETTER_DESCRIPTION].contains(&name);
    Outgoing {
        message_id: new_id(message.sequence_number, &message.message_id),
        body: message.body.clone(),
        content_type: message.content_type.clone(),
        subject: message.subject.clone(),
        correlation_id: message.correlation_id.clone(),
        application_properties: message
            .application_properties
            .iter()
            .filter(|(name, _)| own(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    }
}

/// Another id than the old one, which duplicate detection would swallow, and the same each time for the same
/// dead letter.
fn new_id(sequence_number: i64, message_id: &str) -> String {
    let id = format!("resubmit-{sequence_number}-{message_id}");
    id.chars().take(MESSAGE_ID_MAX).collect()
}

/// How many there are, at most [`COUNTED_MAX`].
///
/// # Errors
/// The broker failed.
pub async fn count(client: &Client, queue: &str) -> Result<usize, servicebus::Error> {
    peek(client, queue, COUNTED_MAX)
        .await
        .map(|messages| messages.len())
}

async fn peek(client: &Client, queue: &str, limit: usize) -> Result<Vec<Peeked>, servicebus::Error> {
    let mut messages: Vec<Peeked> = Vec::new();
    while messages.len() < limit {
        let from = messages
            .last()
            .map_or(0, |last| last.sequence_number.saturating_add(1));
        let room = u16::try_from(limit - messages.len()).unwrap_or(PAGE).min(PAGE);
        let page = client.peek(&of(queue), from, room).await?;
        if page.is_empty() {
            break;
        }
        messages.extend(page);
    }
    Ok(messages)
}

async fn find(client: &Client, queue: &str, id: &str) -> Result<Peeked> {
    let messages = peek(client, queue, usize::MAX).await?;
    messages
        .into_iter()
        .find(|message| message.sequence_number.to_string() == id || message.message_id == id)
        .with_context(|| format!("{queue} has no dead letter '{id}'; `operator dead-letters list` shows all"))
}

fn shown(value: &Property) -> String {
    match value {
        Property::Text(text) => printable(text),
        Property::Integer(number) => number.to_string(),
        Property::Float(number) => number.to_string(),
        Property::Boolean(value) => value.to_string(),
        Property::Timestamp(at) => at.to_string(),
        Property::Uuid(id) => id.to_string(),
        Property::Binary(bytes) => format!("{} bytes", bytes.len()),
        Property::Null => "null".to_owned(),
    }
}

/// What others wrote must not drive a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let escaped = character.is_control() && character != '\n' && character != '\t';
            let escape = escaped.then(|| character.escape_default());
            let plain = (!escaped).then_some(character);
            escape.into_iter().flatten().chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use servicebus_emulator::Running;

    use super::*;
    use crate::testing::{QUEUE, broker};

    struct Here {
        _broker: Running,
        client: Client,
    }

    /// So many dead letters, `m0` and on, each with its number in the body.
    async fn here(dead: usize) -> Here {
        let (broker, client) = broker().await;
        let messages: Vec<Outgoing> = (0..dead)
            .map(|number| Outgoing {
                message_id: format!("m{number}"),
                body: format!(r#"{{"number":{number}}}"#).into(),
                content_type: Some("application/json".to_owned()),
                correlation_id: Some("c".to_owned()),
                application_properties: BTreeMap::from([("traceparent".to_owned(), "00-1".into())]),
                ..Outgoing::default()
            })
            .collect();
        assert!(
            client
                .sender(QUEUE, SenderOptions::default())
                .send(messages)
                .await
                .all_accepted()
        );
        let receiver = client.receiver(QUEUE, 8);
        for _ in 0..dead {
            let message = receiver.recv().await.unwrap();
            receiver
                .dead_letter(&message, "Malformed", "no \u{1b}[31mJSON")
                .await
                .unwrap();
        }
        receiver.close().await;
        Here {
            _broker: broker,
            client,
        }
    }

    impl Here {
        /// The ids of what waits in the queue now.
        async fn queued(&self) -> Vec<Peeked> {
            self.client.peek(QUEUE, 0, 100).await.unwrap()
        }

        async fn dead(&self) -> Vec<String> {
            let dead = peek(&self.client, QUEUE, usize::MAX).await.unwrap();
            dead.into_iter().map(|message| message.message_id).collect()
        }
    }

    fn text(out: &[u8]) -> &str {
        std::str::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn dead_letters_are_listed_with_their_reasons_and_stay() {
        let here = here(2).await;
        let mut out = Vec::new();

        list(&here.client, QUEUE, 100, &mut out).await.unwrap();

        let out = text(&out);
        assert_eq!(out.lines().count(), 3, "{out}");
        assert!(out.contains("m1") && out.contains("Malformed"), "{out}");
        assert!(
            out.contains(r"no \u{1b}[31mJSON"),
            "escapes are shown and not obeyed: {out}"
        );
        assert_eq!(here.dead().await, ["m0", "m1"]);
    }

    #[tokio::test]
    async fn a_queue_without_dead_letters_says_so() {
        let here = here(0).await;
        let mut out = Vec::new();

        list(&here.client, QUEUE, 100, &mut out).await.unwrap();
        resubmit_all(&here.client, QUEUE, &mut out).await.unwrap();

        assert_eq!(
            text(&out),
            format!("no dead letters in {QUEUE}\nno dead letters in {QUEUE}\n")
        );
    }

    #[tokio::test]
    async fn one_is_shown_by_its_message_id_with_its_body_laid_out() {
        let here = here(1).await;
        let mut out = Vec::new();

        show(&here.client, QUEUE, "m0", &mut out).await.unwrap();

        let out = text(&out);
        assert!(out.contains("DeadLetterReason = Malformed"), "{out}");
        assert!(out.ends_with("{\n  \"number\": 0\n}\n"), "{out}");
    }

    #[tokio::test]
    async fn an_unknown_one_is_an_error_that_says_where_to_look() {
        let here = here(1).await;

        let error = show(&here.client, QUEUE, "m7", &mut Vec::new())
            .await
            .unwrap_err();

        assert!(
            error
                .to_string()
                .contains("has no dead letter 'm7'; `operator dead-letters list`"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn one_behind_others_is_sent_again_under_a_new_id_and_the_others_stay() {
        let here = here(3).await;
        let wanted = peek(&here.client, QUEUE, 9).await.unwrap()[1].sequence_number;

        resubmit_one(&here.client, QUEUE, &wanted.to_string(), &mut Vec::new())
            .await
            .unwrap();

        let queued = here.queued().await;
        assert_eq!(queued.len(), 1);
        assert_eq!(queued[0].message_id, format!("resubmit-{wanted}-m1"));
        assert_eq!(queued[0].body, r#"{"number":1}"#);
        assert_eq!(queued[0].correlation_id.as_deref(), Some("c"));
        assert_eq!(
            queued[0].application_properties,
            BTreeMap::from([("traceparent".to_owned(), "00-1".into())])
        );
        assert_eq!(here.dead().await, ["m0", "m2"]);
        // what was set aside can be had at once
        resubmit_all(&here.client, QUEUE, &mut Vec::new()).await.unwrap();
        assert!(here.dead().await.is_empty());
    }

    #[tokio::test]
    async fn all_are_sent_again() {
        let here = here(12).await;

        resubmit_all(&here.client, QUEUE, &mut Vec::new()).await.unwrap();

        assert_eq!(here.queued().await.len(), 12);
        assert_eq!(count(&here.client, QUEUE).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_copy_that_is_refused_leaves_the_dead_letter_where_it_is() {
        let here = here(1).await;
        here._broker
            .set_faults(
                &QUEUE.parse().unwrap(),
                servicebus_emulator::QueueFaults {
                    refuse_sends: Some(servicebus_emulator::Refusals {
                        next: 1,
                        condition: "amqp:resource-limit-exceeded".to_owned(),
                        description: "full".to_owned(),
                    }),
                    ..Default::default()
                },
            )
            .unwrap();

        let error = resubmit_all(&here.client, QUEUE, &mut Vec::new())
            .await
            .unwrap_err();

        assert!(error.to_string().contains("the dead letter stays"), "{error:#}");
        assert_eq!(here.dead().await, ["m0"]);
        assert!(here.queued().await.is_empty());
    }

    #[test]
    fn a_new_id_is_within_the_limit_and_tells_dead_letters_apart() {
        let long = "x".repeat(200);

        assert_eq!(new_id(7, &long).chars().count(), MESSAGE_ID_MAX);
        assert_ne!(new_id(7, &long), new_id(8, &long));
        assert_eq!(new_id(7, "m"), new_id(7, "m"));
    }
}
