//! Where a server is called: what comes back of a session that others send to, or that this element alone has.

use std::sync::Arc;
use std::time::Duration;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::{CAT, Prototype, RtcSessionSrc, config, prototypes};
use crate::elements::dialling;
use crate::elements::rtcsessionsrc::settings::Plan;
use crate::elements::rtcsessionsrc::stage::ElementStage;
use crate::peer::dialled::{Dialled, Receiver};
use crate::peer::directory;

/// Everything that exists from READY on, where a server is called.
pub(super) struct Receiving {
    pub stage: Arc<ElementStage>,
    pub dialled: Arc<Dialled>,
    plan: Plan,
    _prototypes: Vec<Prototype>,
}

impl RtcSessionSrc {
    /// Checks the settings, where a server is called instead of visitors being waited for.
    pub(super) fn prepare_to_receive(
        &self,
        dialled: Arc<Dialled>,
    ) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings().clone();
        self.dialling.check(&settings.session)?;
        if settings.webrtcbin.is_some() {
            return Err(gst::error_msg!(
                gst::ResourceError::Settings,
                (
                    "webrtcbin={}: a webrtcbin calls no server",
                    settings.webrtcbin.unwrap_or_default()
                )
            ));
        }
        let plan = settings
            .plan()
            .map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{error}")))?;
        let prototypes = prototypes(&plan)?;
        let stage = ElementStage::new(
            &self.obj(),
            dialled.name().to_owned(),
            plan.video_chain.clone(),
            plan.audio_chain.clone(),
            gst::ClockTime::from_mseconds(settings.latency.into()),
            // Its end is that of the session, whoever calls.
            true,
            dialled.reconnects(),
        );
        *self.receiving() = Some(Receiving {
            stage: Arc::new(stage),
            dialled,
            plan,
            _prototypes: prototypes,
        });
        Ok(())
    }

    /// Takes what comes back from now on.
    pub(super) fn receive(&self) -> Result<(), gst::ErrorMessage> {
        let mut receiving = self.receiving();
        let Some(Receiving {
            stage,
            dialled,
            plan,
            ..
        }) = &*receiving
        else {
            return Ok(());
        };
        let settings = self.settings().clone();
        let element = self.obj().downgrade();
        let ended = stage.clone();
        let receiver = Receiver {
            stage: stage.clone(),
            config: config(&settings, plan, None),
            max_buffers: settings.max_buffers,
            drop: settings.drop,
            over: Box::new(move |well| {
                // What is behind its pads may take its time.
                crate::runtime::runtime().spawn_blocking(move || {
                    ended.end_pads();
                    if let Some(element) = element.upgrade().filter(|_| well) {
                        let eos = gst::message::Eos::builder().src(&element);
                        let _ = element.post_message(eos.build());
                    }
                });
            }),
        };
        if dialled.receive(Some(receiver)) {
            stage.begin_pads();
            return Ok(());
        }
        // Nothing of it is ours to stop.
        *receiving = None;
        Err(gst::error_msg!(
            gst::ResourceError::Settings,
            (
                "session={}: another rtcsessionsrc takes what comes back of it already",
                settings.session
            )
        ))
    }

    /// Ends the session with the server.
    pub(super) fn stop_receiving(&self) {
        self.dialling.stop(true);
        let Some(dialled) = self.receiving().as_ref().map(|r| r.dialled.clone()) else {
            return;
        };
        let limit = Duration::from_millis(self.settings().shutdown_timeout.into());
        if !self.dialling.calls() && directory::session(dialled.name()).is_some() {
            dialled.close();
            dialled.wait_over(limit);
        }
        dialled.receive(None);
        let stage = self.receiving().as_ref().map(|r| r.stage.clone());
        if let Some(stage) = stage {
            stage.end_pads();
        }
    }

    /// Tells a server that was called what the application sets; `None` where it takes no arguments.
    pub fn send_args(&self, args: &gst::StructureRef) -> Option<bool> {
        let dialled = self.receiving().as_ref().map(|r| r.dialled.clone())?;
        if args.fields().any(|name| name.contains('.')) {
            // It is for the chains here.
            return None;
        }
        match dialling::json(args) {
            Ok(args) => dialled.send_args(args).then_some(true),
            Err(error) => {
                gst::warning!(CAT, imp = self, "set-args: {error}");
                Some(false)
            }
        }
    }
}
