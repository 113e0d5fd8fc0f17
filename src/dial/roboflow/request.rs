//! What the options make of a session: where its frames are from, and what is asked for.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;

use serde_json::{Map, Value};
use url::Url;

use super::{NAME, table};
use crate::dial::secret::Secret;
use crate::dial::{OptionError, Options};
use crate::logic::wire::roboflow_client::{Request, Workflow};

/// A workflow of a thousand steps is smaller.
const MOST_WORKFLOW: u64 = 4 << 20;

/// Where the server has its frames from.
pub enum Source {
    /// A line of the offer.
    Sent,
    Rtsp(String),
    Mjpeg(String),
    Upload {
        path: PathBuf,
        on_track: bool,
    },
}

impl Source {
    /// A text without the address, which may have an account in it.
    pub fn hide_in(&self, text: &str) -> String {
        match self {
            Self::Rtsp(url) | Self::Mjpeg(url) => Secret::new(url.clone()).hide_in(text),
            Self::Sent | Self::Upload { .. } => text.to_owned(),
        }
    }

    pub fn of(options: &Options) -> Result<Self, OptionError> {
        let named = [table::RTSP_URL, table::MJPEG_URL, table::UPLOAD_LOCATION]
            .map(|key| options.text(key));
        let (first, second) = match named {
            [Some(_), Some(_), _] => (table::RTSP_URL, table::MJPEG_URL),
            [Some(_), _, Some(_)] => (table::RTSP_URL, table::UPLOAD_LOCATION),
            [_, Some(_), Some(_)] => (table::MJPEG_URL, table::UPLOAD_LOCATION),
            [Some(url), ..] => {
                return Ok(Self::Rtsp(fetched(
                    table::RTSP_URL,
                    url,
                    &["rtsp", "rtsps"],
                )?));
            }
            [_, Some(url), _] => {
                return Ok(Self::Mjpeg(fetched(
                    table::MJPEG_URL,
                    url,
                    &["http", "https"],
                )?));
            }
            [_, _, Some(path)] => {
                return Ok(Self::Upload {
                    path: uploaded(path)?,
                    on_track: on_track(options)?,
                });
            }
            [None, None, None] => {
                if options.text(table::UPLOAD_FRAMES).is_some() {
                    let problem = "there is no upload-location that it could be of";
                    return Err(OptionError::value(table::UPLOAD_FRAMES, problem));
                }
                return Ok(Self::Sent);
            }
        };
        Err(OptionError::Together(first, second))
    }
}

/// An account in it is meant for the server, and for nobody else: it is not repeated.
fn fetched(key: &'static str, url: &str, schemes: &[&str]) -> Result<String, OptionError> {
    let parsed = Url::parse(url).ok();
    match parsed.filter(|url| schemes.contains(&url.scheme()) && url.has_host()) {
        Some(_) => Ok(url.to_owned()),
        None => {
            let problem = format!("no URL that begins with {}://", schemes.join(":// or "));
            Err(OptionError::value(key, problem))
        }
    }
}

fn uploaded(path: &str) -> Result<PathBuf, OptionError> {
    let bad =
        |problem: String| OptionError::value(table::UPLOAD_LOCATION, format!("{path}: {problem}"));
    let about = fs::metadata(path).map_err(|error| bad(error.to_string()))?;
    if !about.is_file() {
        return Err(bad("it is no file".into()));
    }
    if about.len() == 0 {
        return Err(bad("it is empty".into()));
    }
    // Opened now, so that a file that may not be read is told before anybody is called.
    File::open(path).map_err(|error| bad(error.to_string()))?;
    Ok(PathBuf::from(path))
}

fn on_track(options: &Options) -> Result<bool, OptionError> {
    match options.text(table::UPLOAD_FRAMES) {
        None | Some("channel") => Ok(false),
        Some("track") => Ok(true),
        Some(_) => Err(OptionError::value(
            table::UPLOAD_FRAMES,
            "channel or track is right",
        )),
    }
}

/// The request as it is for every call: key, ICE servers and the offer come with the call.
pub fn request(options: &Options, source: &Source) -> Result<Request, OptionError> {
    let declared_fps = options.number(table::DECLARED_FPS);
    if declared_fps.is_some_and(|fps| !fps.is_finite() || fps <= 0.0) {
        let problem = "more than 0 is right";
        return Err(OptionError::value(table::DECLARED_FPS, problem));
    }
    let text = |key| options.text(key).map(str::to_owned);
    let is_upload = matches!(source, Source::Upload { .. });
    let mut request = Request::new(workflow(options)?);
    if let Some(name) = text(table::IMAGE_INPUT_NAME) {
        request.image_input_name = name;
    }
    let parameters = options.object(table::WORKFLOW_PARAMETERS)?;
    request.workflow_parameters = parameters.unwrap_or_default();
    request.stream_output = options.texts(table::STREAM_OUTPUT).unwrap_or_default();
    request.data_output = options.texts(table::DATA_OUTPUT).unwrap_or_default();
    request.realtime = options
        .flag(table::REALTIME_PROCESSING)
        .unwrap_or(!is_upload);
    request.declared_fps = declared_fps;
    request.processing_timeout = options.integer(table::PROCESSING_TIMEOUT, 1..=604_800)?;
    request.requested_plan = text(table::REQUESTED_PLAN);
    request.requested_region = text(table::REQUESTED_REGION);
    request.upload = is_upload;
    match source {
        Source::Rtsp(url) => request.rtsp_url = Some(url.clone()),
        Source::Mjpeg(url) => request.mjpeg_url = Some(url.clone()),
        Source::Upload { on_track, .. } if !on_track => {
            let moved = request.with_pictures_in_channel();
            request =
                moved.map_err(|error| OptionError::value(table::DATA_OUTPUT, error.to_string()))?;
        }
        Source::Sent | Source::Upload { .. } => {}
    }
    Ok(request)
}

fn workflow(options: &Options) -> Result<Workflow, OptionError> {
    let named = [
        table::WORKSPACE,
        table::WORKFLOW_ID,
        table::WORKFLOW_VERSION,
    ];
    if let Some(path) = options.text(table::WORKFLOW_FILE) {
        let other = named.into_iter().find(|key| options.text(key).is_some());
        return match other {
            Some(other) => Err(OptionError::Together(table::WORKFLOW_FILE, other)),
            None => specification(path).map(Workflow::Specification),
        };
    }
    let missing = |what| OptionError::Missing {
        protocol: NAME,
        what,
    };
    match named.map(|key| options.text(key).map(str::to_owned)) {
        [Some(workspace), Some(id), version] => Ok(Workflow::Named {
            workspace,
            id,
            version,
        }),
        [None, None, None] => Err(missing(
            "option workflow-file, or options workspace and workflow-id",
        )),
        [None, ..] => Err(missing("option workspace beside those of the workflow")),
        [_, None, _] => Err(missing("option workflow-id beside those of the workflow")),
    }
}

fn specification(path: &str) -> Result<Value, OptionError> {
    let bad =
        |problem: String| OptionError::value(table::WORKFLOW_FILE, format!("{path}: {problem}"));
    let file = File::open(path).map_err(|error| bad(error.to_string()))?;
    let mut text = Vec::new();
    let read = file.take(MOST_WORKFLOW + 1).read_to_end(&mut text);
    read.map_err(|error| bad(error.to_string()))?;
    if text.len() as u64 > MOST_WORKFLOW {
        return Err(bad(format!("it is longer than {MOST_WORKFLOW} bytes")));
    }
    let specification: Map<String, Value> =
        serde_json::from_slice(&text).map_err(|error| bad(format!("no JSON object: {error}")))?;
    Ok(specification.into())
}
