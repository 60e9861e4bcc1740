//! Switches that make the broker misbehave, so that clients can be tested against what networks and
//! services do. They are set over the admin port or by `Running`, and most use themselves up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An error that the next few operations are answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusals {
    /// How many more.
    pub next: u32,
    /// The AMQP error condition, such as `com.microsoft:server-busy`.
    #[serde(default = "server_busy")]
    pub condition: String,
    /// The text that goes with it.
    #[serde(default = "refused_by_switch")]
    pub description: String,
}

fn server_busy() -> String {
    "com.microsoft:server-busy".to_owned()
}

fn refused_by_switch() -> String {
    "refused by a fault switch of the emulator".to_owned()
}

/// What goes wrong in one queue. Numbers count from the moment the switch is set; 0 is off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueFaults {
    /// Answers to sends and settlements come this many milliseconds late.
    pub delay_ms: u64,
    /// The next sends are refused, and nothing is stored.
    pub refuse_sends: Option<Refusals>,
    /// The next settlements are refused, and the lock stays.
    pub refuse_settlements: Option<Refusals>,
    /// The next links that want to attach are refused.
    pub refuse_attaches: Option<Refusals>,
    /// The outcomes of the next N sends are never sent, though the messages are stored.
    pub lose_outcomes: u32,
    /// The N-th send is stored, and its connection dropped instead of an outcome.
    pub drop_after_sends: u32,
    /// The N-th send is not stored, and its connection dropped.
    pub drop_before_storing: u32,
    /// The N-th send is stored, and its connection then reads and writes nothing more, but stays open.
    pub silent_after_sends: u32,
    /// The connection is dropped after the N-th message went out.
    pub drop_after_deliveries: u32,
    /// The next N settlements take effect, and their connection is dropped instead of an answer.
    pub drop_before_answer: u32,
    /// The next N settlements do not take effect, and their connection is dropped.
    pub drop_before_settling: u32,
}

/// What goes wrong for the broker as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerFaults {
    /// New connections are closed before a byte is read. (The port stays bound, so that nobody else takes it.)
    pub refuse_connections: bool,
    /// New connections are taken, and never get an answer.
    pub silent_connections: bool,
    /// The next N tokens put to `$cbs` are answered with [`BrokerFaults::token_status`].
    pub refuse_tokens: u32,
    /// The status of a refused token; 0, the default, means 401.
    pub token_status: u16,
}

/// What becomes of the connection after an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The answer goes out.
    Answer {
        /// After this long.
        after: Duration,
    },
    /// No answer to this one.
    Lose,
    /// Nothing more on this connection, which stays open.
    Silence,
    /// The connection ends.
    Drop,
}

impl Fate {
    /// The answer goes out at once.
    pub const NOW: Self = Self::Answer {
        after: Duration::ZERO,
    };
}

/// What a switch says about an operation that is about to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It happens, and then this.
    Go(Fate),
    /// It does not happen, and then this.
    Skip(Fate),
    /// It does not happen, and is answered with an error.
    Refuse {
        /// The AMQP condition.
        condition: String,
        /// The text.
        description: String,
        /// After this long.
        after: Duration,
    },
}

impl QueueFaults {
    fn answer(&self) -> Fate {
        Fate::Answer { after: self.delay() }
    }

    /// How late answers are.
    pub fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    /// Counts a send and says what becomes of it.
    pub fn on_send(&mut self) -> Verdict {
        if let Some(refused) = refuse(&mut self.refuse_sends, self.delay_ms) {
            return refused;
        }
        if is_nth(&mut self.drop_before_storing) {
            Verdict::Skip(Fate::Drop)
        } else if is_nth(&mut self.drop_after_sends) {
            Verdict::Go(Fate::Drop)
        } else if is_nth(&mut self.silent_after_sends) {
            Verdict::Go(Fate::Silence)
        } else if is_among_next(&mut self.lose_outcomes) {
            Verdict::Go(Fate::Lose)
        } else {
            Verdict::Go(self.answer())
        }
    }

    /// Counts a settlement and says what becomes of it.
    pub fn on_settle(&mut self) -> Verdict {
        if let Some(refused) = refuse(&mut self.refuse_settlements, self.delay_ms) {
            return refused;
        }
        if is_among_next(&mut self.drop_before_settling) {
            Verdict::Skip(Fate::Drop)
        } else if is_among_next(&mut self.drop_before_answer) {
            Verdict::Go(Fate::Drop)
        } else {
            Verdict::Go(self.answer())
        }
    }

    /// Counts a delivery and says whether the connection ends after it.
    pub fn on_delivery(&mut self) -> Fate {
        if is_nth(&mut self.drop_after_deliveries) {
            Fate::Drop
        } else {
            self.answer()
        }
    }

    /// Counts an attach; the refusal, when there is one.
    pub fn on_attach(&mut self) -> Option<Verdict> {
        refuse(&mut self.refuse_attaches, 0)
    }
}

impl BrokerFaults {
    /// Counts a token; the status that it is refused with, when it is.
    pub fn on_token(&mut self) -> Option<u16> {
        is_among_next(&mut self.refuse_tokens).then_some(if self.token_status == 0 {
            401
        } else {
            self.token_status
        })
    }
}

fn refuse(refusals: &mut Option<Refusals>, delay_ms: u64) -> Option<Verdict> {
    let left = refusals.as_mut().filter(|left| left.next > 0)?;
    left.next -= 1;
    Some(Verdict::Refuse {
        condition: left.condition.clone(),
        description: left.description.clone(),
        after: Duration::from_millis(delay_ms),
    })
}

fn is_nth(countdown: &mut u32) -> bool {
    let hit = *countdown == 1;
    *countdown = countdown.saturating_sub(1);
    hit
}

fn is_among_next(left: &mut u32) -> bool {
    let hit = *left > 0;
    *left = left.saturating_sub(1);
    hit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_countdown_hits_the_nth_send_once() {
        let mut faults = QueueFaults {
            drop_after_sends: 3,
            ..QueueFaults::default()
        };

        let verdicts: Vec<_> = (0..5).map(|_| faults.on_send()).collect();

        let go = Verdict::Go(Fate::NOW);
        assert_eq!(
            verdicts,
            [go.clone(), go.clone(), Verdict::Go(Fate::Drop), go.clone(), go]
        );
    }

    #[test]
    fn the_next_outcomes_are_lost_and_then_no_more() {
        let mut faults = QueueFaults {
            lose_outcomes: 2,
            ..QueueFaults::default()
        };

        let verdicts: Vec<_> = (0..3).map(|_| faults.on_send()).collect();

        assert_eq!(
            verdicts,
            [
                Verdict::Go(Fate::Lose),
                Verdict::Go(Fate::Lose),
                Verdict::Go(Fate::NOW)
            ]
        );
    }

    #[test]
    fn throttling_is_server_busy_unless_said_otherwise() {
        let mut faults: QueueFaults = serde_json::from_str(r#"{"refuse_sends": {"next": 1}}"#).unwrap();

        assert!(
            matches!(faults.on_send(), Verdict::Refuse { condition, .. } if condition == "com.microsoft:server-busy")
        );
        assert_eq!(faults.on_send(), Verdict::Go(Fate::NOW));
    }

    #[test]
    fn an_unknown_switch_is_refused() {
        let error = serde_json::from_str::<QueueFaults>(r#"{"drop_everything": 1}"#)
            .unwrap_err()
            .to_string();

        assert!(error.contains("drop_everything"), "{error}");
    }
}
