//! How a connection ends: its visitor is told, its streams are drained, it is taken apart, and the last word is said.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Connection, lock, on_a_thread};
use crate::logic::connection::{EndReason, Phase};
use crate::logic::registry::Place;
use crate::logic::wire::dialect::News;
use crate::peer::CAT;
use crate::peer::scene::Scene;

/// What the last words may take when the whole server stops.
const IN_A_HURRY: Duration = Duration::from_millis(300);
/// Between two words to one who may not have understood that it is over.
const SAY_AGAIN: Duration = Duration::from_millis(500);
/// How often it is looked whether the last words have reached a visitor.
const TOLD_YET: Duration = Duration::from_millis(10);

#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) reason: EndReason,
    pub(super) detail: Option<String>,
}

/// What of a connection may not stop with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Scene,
    /// Its webrtcbin, and what is linked to that.
    Visit,
}

/// How far taking a part of it apart has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Apart {
    NotYet,
    /// The connection has had its last word before.
    LeftBehind,
    Done,
}

/// What there is still of a connection that is being ended.
pub(super) struct Remains {
    /// Absent while a job has it, and for good when that job does not come back.
    pub(super) scene: Option<Scene>,
    pub(super) at_work: Option<oneshot::Receiver<Scene>>,
    pub(super) place: Arc<Place<Arc<Connection>>>,
    /// When its answer was handed out.
    pub(super) since: Instant,
    pub(super) drain_timeout: Duration,
    pub(super) alive: std::sync::mpsc::Sender<()>,
}

impl Connection {
    /// Ends the connection; only the first reason counts. Says whether this was it.
    pub fn end(&self, reason: EndReason, detail: Option<String>) -> bool {
        let (reason, detail) = self.as_announced(reason, detail);
        let first = self.end.set(End { reason, detail }).is_ok();
        if first {
            self.ending.notify_one();
        }
        first
    }

    /// Ends it with the whole server, draining for at most `limit`; where that is abrupt, without waiting for what
    /// is behind its pads.
    pub fn end_with_the_server(&self, abrupt: bool, limit: Duration) {
        self.abrupt.store(abrupt, Ordering::Relaxed);
        // Told twice, by EOS and then by NULL, the first limit counts.
        let _ = self.hurry.set(limit);
        self.end(EndReason::ServerShutdown, None);
    }

    /// Everything from the reason to the last word.
    pub(super) async fn come_to_its_end(&self, remains: Remains) {
        let Remains {
            mut scene,
            mut at_work,
            place,
            since,
            drain_timeout,
            alive,
        } = remains;
        // Somebody else may come from here on, whatever this one's chain still does.
        place.leave();
        self.enter(Phase::Ending);
        let end = self.end.get().expect("its life ends with a reason");
        if end.reason.is_ours() {
            self.tell_over(end);
        }
        let drain = match self.hurry.get() {
            Some(limit) => drain_timeout.min(*limit),
            None => self.drain_of(end.reason).unwrap_or(drain_timeout),
        };
        if end.reason.is_ours() {
            let patience = match self.hurry.get() {
                Some(_) => drain.min(IN_A_HURRY),
                None => drain,
            };
            self.wait_told(patience).await;
            self.linger(end).await;
        }
        let abrupt = self.is_abrupt();
        self.transport.close(&self.id, drain, abrupt).await;
        self.lanes.close();
        if let Some(job) = &mut at_work {
            scene = match tokio::time::timeout(drain, &mut *job).await {
                Ok(back) => back.ok(),
                Err(_) => {
                    // It may have come back in this very moment.
                    job.close();
                    job.try_recv().ok()
                }
            };
        }
        drop(place);
        match scene {
            Some(scene) => {
                // A panic in it is as good as its end.
                let _ = on_a_thread(move |done| {
                    scene.end(drain);
                    // Whoever waits has gone only with the runtime.
                    let _ = done.send(());
                })
                .await;
            }
            // The job has it still, and takes it apart when it comes back to find nobody.
            None => self.was_left_behind(Part::Scene),
        }
        self.stage.visitor_leaves(&self.id);
        self.say_streams_ended(end.reason);
        self.books.close();
        self.say_end(end, since.elapsed());
        self.stage.visitor_left(&self.id);
        self.over_at_last.send_replace(true);
        drop(alive);
        crate::runtime::tidy_memory_soon();
    }

    /// What was said to the visitor has reached it, or the time for that is over.
    async fn wait_told(&self, limit: Duration) {
        let told = async {
            while self
                .transport
                .unsent(&self.id)
                .await
                .is_some_and(|unsent| unsent > 0)
            {
                tokio::time::sleep(TOLD_YET).await;
            }
        };
        // Whoever does not take it in time goes without.
        let _ = tokio::time::timeout(limit, told).await;
    }

    /// Says once more that it is over, until the visitor goes or the time for that is over.
    async fn linger(&self, end: &End) {
        let limit = match end.reason {
            EndReason::SourceEnded => lock(&self.agreement.dialect).lingers(),
            _ => Duration::ZERO,
        };
        let begin = Instant::now();
        while begin.elapsed() < limit && self.hurry.get().is_none() {
            tokio::time::sleep(SAY_AGAIN).await;
            if self.transport.unsent(&self.id).await.is_none() {
                return;
            }
            self.tell_over(end);
        }
    }

    fn tell_over(&self, end: &End) {
        self.tell(News::Over {
            reason: end.reason,
            detail: end.detail.as_deref(),
        });
    }

    /// Something of that does not stop.
    pub fn was_left_behind(&self, part: Part) {
        let mut apart = lock(&self.apart);
        let counted = apart.contains(&Apart::LeftBehind);
        if apart[part as usize] == Apart::NotYet {
            apart[part as usize] = Apart::LeftBehind;
            self.metrics.left_behind(i64::from(!counted));
            gst::warning!(
                CAT,
                "{}: something of it does not stop and is left behind",
                self.id
            );
        }
    }

    /// Everything of that is freed, be it late.
    pub fn was_taken_apart(&self, part: Part) {
        let mut apart = lock(&self.apart);
        let was = std::mem::replace(&mut apart[part as usize], Apart::Done);
        if was == Apart::LeftBehind && !apart.contains(&Apart::LeftBehind) {
            self.metrics.left_behind(-1);
        }
    }
}
