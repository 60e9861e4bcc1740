//! Which message-ids came in lately:
//! <https://learn.microsoft.com/azure/service-bus-messaging/duplicate-detection>.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use crate::clock::Moment;

#[derive(Debug, Default)]
pub struct DuplicateWindow {
    by_age: VecDeque<(Moment, String)>,
    ids: HashSet<String>,
}

impl DuplicateWindow {
    pub fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Ids are remembered in the order of their times.
    pub fn remember(&mut self, at: Moment, id: String) {
        self.ids.insert(id.clone());
        self.by_age.push_back((at, id));
    }

    /// Forgets, and answers with, what came in longer than `window` ago.
    pub fn forget_before(&mut self, now: Moment, window: Duration) -> Vec<(Moment, String)> {
        let mut forgotten = Vec::new();
        while let Some((at, id)) = self.by_age.pop_front_if(|(at, _)| at.plus(window) <= now) {
            self.ids.remove(&id);
            forgotten.push((at, id));
        }
        forgotten
    }
}
