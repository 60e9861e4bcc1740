//! What a program needs before it can work: looked at until it is there, told once when it is not.
//!
//! A dependency that is away is another matter: it comes back by itself, and the program's parts wait for it.

use std::future::Future;
use std::time::Duration;

use checks::{Check, Outcome};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often is looked while something is missing: whoever made it waits for the program.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// How often is looked while nothing is missing.
const LOOK_ON: Duration = Duration::from_secs(30);

/// What the program's needs are now; clones see the same.
#[derive(Clone, Debug)]
pub struct Needs {
    state: watch::Receiver<State>,
    only_to_begin: &'static [&'static str],
}

#[derive(Clone, Debug, Default)]
struct State {
    missing: Vec<Check>,
    looked: bool,
    /// Whether nothing was missing at some time.
    met: bool,
}

/// Keeps [`Needs`] up to date.
pub struct Watch {
    program: &'static str,
    state: watch::Sender<State>,
    needs: Needs,
}

impl Watch {
    /// For this program, by the name that `operator doctor --as` has for it. What is in `only_to_begin` (names
    /// of checks) no longer makes the program unready once it had all it needs: it would help nobody to take a
    /// program that can do most of its work out of service.
    pub fn new(program: &'static str, only_to_begin: &'static [&'static str]) -> Self {
        let (state, receiver) = watch::channel(State::default());
        let needs = Needs {
            state: receiver,
            only_to_begin,
        };
        Self {
            program,
            state,
            needs,
        }
    }

    /// What is found.
    pub fn needs(&self) -> Needs {
        self.needs.clone()
    }

    /// Looks until the token is cancelled. `look` is told whether the program ever had all it needs; `tell`
    /// sends an Event with such a note and says in a few words what became of it. Each change is told once, by
    /// one line in the log and one Event.
    pub async fn run<L, T>(
        self,
        look: impl Fn(bool) -> L,
        tell: impl Fn(String) -> T,
        shutdown: CancellationToken,
    ) where
        L: Future<Output = Vec<Check>>,
        T: Future<Output = String>,
    {
        let watching = async {
            let mut told = String::new();
            loop {
                let State { missing, met, .. } = self.state.borrow().clone();
                let missing = still_missing(missing, look(met).await);
                let words = words(&missing);
                if words != told {
                    self.tell(&missing, &words, &tell).await;
                    told = words;
                }
                let pause = if missing.is_empty() { LOOK_ON } else { LOOK_AGAIN };
                self.state.send_replace(State {
                    met: met || missing.is_empty(),
                    missing,
                    looked: true,
                });
                tokio::time::sleep(pause).await;
            }
        };
        let _: Option<()> = shutdown.run_until_cancelled(watching).await;
    }

    async fn tell<T>(&self, missing: &[Check], words: &str, tell: &impl Fn(String) -> T)
    where
        T: Future<Output = String>,
    {
        if missing.is_empty() {
            tracing::info!("nothing is missing any more");
            return;
        }
        let hint = doctor(self.program);
        let run = distinct(missing.iter().filter_map(|check| check.remedy.as_deref()));
        // the hint first: a note is cut at its end
        let event = tell(format!("{words}. {hint}. Run: {run}")).await;
        tracing::error!(
            missing = words,
            run,
            hint,
            event,
            "something that is needed is missing"
        );
    }
}

impl Needs {
    /// Whether the program may call itself ready; waits until it was looked for the first time.
    ///
    /// # Errors
    /// What is missing.
    pub async fn ready(&self) -> Result<(), String> {
        let mut watched = self.state.clone();
        let Ok(state) = watched.wait_for(|state| state.looked).await else {
            return Err("the program ends".to_owned());
        };
        let hinders = |check: &&Check| !(state.met && self.only_to_begin.contains(&check.name));
        let missing: Vec<Check> = state.missing.iter().filter(hinders).cloned().collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(words(&missing))
        }
    }

    /// Waits until nothing is missing, however long that takes. What is only away counts as there.
    pub async fn met(&self) {
        let mut state = self.state.clone();
        // an error says that nobody looks any more: the program ends
        drop(state.wait_for(|state| state.met).await);
    }
}

/// The sentence that every refusal to start ends with.
pub fn doctor(program: &str) -> String {
    format!(
        "`operator doctor --as {program}` shows everything that is missing, and the command that makes it"
    )
}

/// What is missing now. What was missing and cannot be looked at now still is.
fn still_missing(before: Vec<Check>, now: Vec<Check>) -> Vec<Check> {
    now.into_iter()
        .filter_map(|check| match check.outcome {
            Outcome::Missing(_) => Some(check),
            Outcome::Ok(_) => None,
            Outcome::Unavailable(_) | Outcome::NotChecked(_) => {
                before.iter().find(|earlier| earlier.name == check.name).cloned()
            }
        })
        .collect()
}

fn words(missing: &[Check]) -> String {
    distinct(missing.iter().map(|check| check.outcome.message()))
}

/// A queue that is not there is missing for sending and for receiving.
fn distinct<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut distinct: Vec<&str> = Vec::new();
    for text in texts {
        if !distinct.contains(&text) {
            distinct.push(text);
        }
    }
    distinct.join("; ")
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use super::*;

    fn missing(name: &'static str, what: &str) -> Check {
        Check::missing(name, what, format!("make {what}"))
    }

    fn away(name: &'static str) -> Check {
        Check::unavailable(name, "no answer", "wait")
    }

    /// Looks that find these, one after the other and the last for ever, and the notes that were told.
    struct Watched {
        needs: Needs,
        notes: Arc<Mutex<Vec<String>>>,
        shutdown: CancellationToken,
    }

    fn watched(looks: impl IntoIterator<Item = Vec<Check>>) -> Watched {
        let watch = Watch::new("api", &["blob"]);
        let needs = watch.needs();
        let shutdown = CancellationToken::new();
        let looks = Mutex::new(looks.into_iter().collect::<VecDeque<_>>());
        let notes = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&notes);
        tokio::spawn(watch.run(
            move |_| {
                let mut looks = looks.lock().unwrap();
                let found = if looks.len() > 1 {
                    looks.pop_front()
                } else {
                    looks.front().cloned()
                };
                std::future::ready(found.unwrap_or_default())
            },
            move |note| {
                told.lock().unwrap().push(note);
                std::future::ready("sent".to_owned())
            },
            shutdown.clone(),
        ));
        Watched {
            needs,
            notes,
            shutdown,
        }
    }

    impl Watched {
        /// After so many looks.
        async fn after(&self, seconds: u64) -> Result<(), String> {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            self.needs.ready().await
        }

        fn notes(&self) -> Vec<String> {
            self.notes.lock().unwrap().clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_missing_is_told_once_and_makes_unready_until_it_is_there() {
        let gone = || {
            vec![
                missing("queue send", "no queue q"),
                missing("queue receive", "no queue q"),
            ]
        };
        let watched = watched([gone(), gone(), gone(), vec![Check::ok("queue send", "q")]]);
        assert_eq!(watched.after(1).await, Err("no queue q".to_owned()));
        assert_eq!(watched.after(6).await, Err("no queue q".to_owned()));
        assert_eq!(
            watched.notes(),
            [
                "no queue q. `operator doctor --as api` shows everything that is missing, and the command that makes it. \
              Run: make no queue q"
            ]
        );

        watched.needs.met().await;
        assert_eq!(watched.needs.ready().await, Ok(()));
        assert_eq!(watched.notes().len(), 1);
        watched.shutdown.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_what_is_missing_is_told() {
        let watched = watched([
            vec![missing("queue", "no queue"), missing("blob", "no container")],
            vec![missing("blob", "no container")],
        ]);

        assert_eq!(watched.after(1).await, Err("no queue; no container".to_owned()));
        assert_eq!(watched.after(4).await, Err("no container".to_owned()));
        assert_eq!(watched.notes().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_away_does_not_make_unready() {
        let watched = watched([vec![away("queue")]]);

        assert_eq!(watched.after(1).await, Ok(()));
        assert!(watched.notes().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_missing_and_is_now_away_is_still_missing() {
        let watched = watched([vec![missing("queue", "no queue")], vec![away("queue")]]);

        assert_eq!(watched.after(10).await, Err("no queue".to_owned()));
        assert_eq!(watched.notes().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_needed_only_to_begin_is_told_later_and_leaves_ready() {
        let watched = watched([
            vec![missing("blob", "no container")],
            vec![Check::ok("blob", "")],
            vec![missing("blob", "no container")],
        ]);

        assert!(watched.after(1).await.is_err());
        assert_eq!(watched.after(3).await, Ok(()));
        assert_eq!(watched.after(31).await, Ok(()));
        assert_eq!(watched.notes().len(), 2);
    }
}
