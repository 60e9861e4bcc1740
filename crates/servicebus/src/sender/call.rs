//! The messages of one call of [`crate::Sender::send`], and what is known of each.

use std::num::NonZeroUsize;

use crate::encode::{Encoded, plan};
use crate::error::{Cause, Error};
use crate::message::Outgoing;
use crate::sender::link::Round;
use crate::sender::{Outcome, SendReport};

#[derive(Debug)]
pub(crate) struct Call {
    /// `None` for those that could not be encoded.
    messages: Vec<Option<Encoded>>,
    outcomes: Vec<Option<Outcome>>,
    /// Those that were in a batch refused as a whole: they go one by one.
    alone: Vec<bool>,
}

impl Call {
    pub(crate) fn new(messages: Vec<Outgoing>) -> Self {
        let (messages, outcomes): (Vec<_>, Vec<_>) = messages
            .into_iter()
            .map(|message| match Encoded::new(message) {
                Ok(encoded) => (Some(encoded), None),
                Err(error) => (None, Some(Outcome::Refused(error))),
            })
            .unzip();
        Self {
            alone: vec![false; messages.len()],
            messages,
            outcomes,
        }
    }

    pub(crate) fn messages(&self) -> &[Option<Encoded>] {
        &self.messages
    }

    pub(crate) fn is_unfinished(&self) -> bool {
        self.outcomes.iter().any(Option::is_none)
    }

    /// Groups what has no outcome yet, and refuses what is larger than `limit`.
    pub(crate) fn batches(&mut self, limit: usize, most: NonZeroUsize) -> Vec<Vec<usize>> {
        let sizes = |alone: bool| {
            let places = self.messages.iter().enumerate();
            places
                .filter(|(place, _)| self.outcomes[*place].is_none() && self.alone[*place] == alone)
                .filter_map(|(place, message)| Some((place, message.as_ref()?.size())))
                .collect::<Vec<_>>()
        };
        let mut together = plan(&sizes(false), limit, most);
        let apart = plan(&sizes(true), limit, NonZeroUsize::MIN);
        together.batches.extend(apart.batches);
        for place in together.too_large.into_iter().chain(apart.too_large) {
            let bytes = self.messages[place]
                .as_ref()
                .map_or(0, |message| message.size().whole);
            self.outcomes[place] = Some(Outcome::Refused(Error::MessageTooLarge {
                bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
                limit: u64::try_from(limit).unwrap_or(u64::MAX),
            }));
        }
        together.batches
    }

    /// Takes over what a round brought. Tells why some messages are still to be sent; `None` when there are
    /// none, or only suspects.
    pub(crate) fn take(&mut self, round: Round) -> Option<Error> {
        let mut reason = None;
        for (place, outcome) in round.outcomes {
            match outcome {
                Outcome::Refused(error) if error.is_retriable() => reason = Some(error),
                outcome => self.outcomes[place] = Some(outcome),
            }
        }
        for place in round.suspects {
            self.alone[place] = true;
        }
        match round.broken {
            Some(error) if !round.unsent.is_empty() => Some(error),
            _ => reason,
        }
    }

    /// Gives those without an outcome this one.
    pub(crate) fn refuse_rest(&mut self, error: &Error) {
        for outcome in self.outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            *outcome = Some(Outcome::Refused(error.clone()));
        }
    }

    pub(crate) fn into_report(self) -> SendReport {
        let outcomes = self.outcomes.into_iter();
        SendReport {
            // Callers finish a call before they report it; a hole would mean that nothing is known.
            outcomes: outcomes
                .map(|outcome| {
                    outcome.unwrap_or(Outcome::Unknown(Error::Connection {
                        source: Cause::Disconnected,
                    }))
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Condition;

    fn call(messages: usize) -> Call {
        Call::new(
            (0..messages)
                .map(|place| Outgoing {
                    message_id: place.to_string(),
                    body: vec![0; 10].into(),
                    ..Outgoing::default()
                })
                .collect(),
        )
    }

    fn refused(condition: &str) -> Outcome {
        Outcome::Refused(Error::Send {
            entity: "queue".into(),
            source: Cause::Broker {
                condition: Condition::new(condition),
                description: String::new(),
            },
        })
    }

    const MOST: NonZeroUsize = NonZeroUsize::new(10).unwrap();

    #[test]
    fn retriable_refusals_stay_to_be_sent_and_others_do_not() {
        let mut call = call(3);

        let reason = call.take(Round {
            outcomes: vec![
                (0, Outcome::Accepted),
                (1, refused(Condition::SERVER_BUSY)),
                (2, refused("amqp:resource-limit-exceeded")),
            ],
            ..Round::default()
        });

        assert!(reason.unwrap().retry_after().is_some());
        assert_eq!(call.batches(1_000, MOST), [[1]]);
    }

    #[test]
    fn batch_refused_as_a_whole_goes_one_by_one() {
        let mut call = call(3);

        let reason = call.take(Round {
            suspects: vec![0, 2],
            ..Round::default()
        });

        assert!(reason.is_none());
        assert_eq!(call.batches(1_000, MOST), [[1], [0], [2]]);
    }

    #[test]
    fn unknown_outcomes_are_never_sent_again() {
        let mut call = call(1);
        let lost = Error::Connection {
            source: Cause::Disconnected,
        };

        let reason = call.take(Round {
            outcomes: vec![(0, Outcome::Unknown(lost.clone()))],
            broken: Some(lost),
            ..Round::default()
        });

        assert!(reason.is_none());
        assert!(!call.is_unfinished());
        assert!(matches!(call.into_report().outcomes[..], [Outcome::Unknown(_)]));
    }

    #[test]
    fn message_too_large_is_refused_alone() {
        let mut call = call(1);

        assert!(call.batches(5, MOST).is_empty());
        assert!(matches!(
            call.into_report().outcomes[..],
            [Outcome::Refused(Error::MessageTooLarge { limit: 5, .. })]
        ));
    }
}
