//! Settlements that receivers send over their links, and the answers to them.

use fe2o3_amqp_types::{
    definitions::Role,
    messaging::DeliveryState,
    performatives::{Disposition as TypedDisposition, Performative},
};

use super::{Effect, Error, Session, Surroundings};
use crate::{
    broker::Refusal,
    codec,
    connection::{
        outcome::{self, Disposition},
        output::Output,
    },
    faults::Fate,
    queue,
};

impl Session {
    /// Takes a settlement and answers it.
    pub fn on_disposition(
        &mut self,
        disposition: &Disposition,
        around: &mut Surroundings<'_>,
    ) -> Result<Option<Effect>, Error> {
        if !disposition.from_receiver {
            return Ok(None);
        }
        let Some(outcome) = &disposition.outcome else {
            if disposition.settled {
                self.unsettled.retain(|id, _| !disposition.covers(*id));
            }
            return Ok(None);
        };

        let ids: Vec<_> = if disposition.first <= disposition.last {
            self.unsettled
                .range(disposition.first..=disposition.last)
                .map(|(id, _)| *id)
                .collect()
        } else {
            self.unsettled
                .keys()
                .copied()
                .filter(|id| disposition.covers(*id))
                .collect()
        };
        if ids.is_empty() && !disposition.settled {
            let lost = Refusal::from(queue::Error::LockLost);
            self.answer(
                disposition.first,
                disposition.last,
                outcome::refusal(&lost),
                Fate::NOW,
                around.output,
            )?;
            return Ok(None);
        }

        let mut confirmed: Vec<(u32, Fate)> = Vec::new();
        let mut effect = None;
        for id in ids {
            let Some(delivery) = self.unsettled.remove(&id) else {
                continue;
            };
            let settled = around.broker.settle(
                &delivery.queue,
                delivery.token,
                outcome.settlement.clone(),
                around.now,
            );
            effect = effect.or(Effect::of(settled.fate));
            if disposition.settled {
                continue;
            }
            match settled.result {
                Ok(()) => confirmed.push((id, settled.fate)),
                Err(refusal) => {
                    self.answer(id, id, outcome::refusal(&refusal), settled.fate, around.output)?
                }
            }
        }
        // Mostly one answer for the whole range, as the client asked.
        for run in confirmed.chunk_by(|(a, fate), (b, next)| a.wrapping_add(1) == *b && fate == next) {
            if let ([(first, fate), ..], [.., (last, _)]) = (run, run) {
                self.answer(*first, *last, outcome.confirmation(), *fate, around.output)?;
            }
        }
        Ok(effect)
    }

    fn answer(
        &self,
        first: u32,
        last: u32,
        state: DeliveryState,
        fate: Fate,
        output: &mut Output,
    ) -> Result<(), codec::Error> {
        let Fate::Answer { after } = fate else {
            return Ok(());
        };
        let answer = TypedDisposition {
            role: Role::Sender,
            first,
            last: Some(last),
            settled: true,
            state: Some(state),
            batchable: false,
        };
        output.send_later(self.channel, &Performative::Disposition(answer), after)
    }
}
