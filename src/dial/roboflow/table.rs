//! The options there are.

use crate::dial::{OptionKind, OptionSpec};

pub const WORKFLOW_FILE: &str = "workflow-file";
pub const WORKSPACE: &str = "workspace";
pub const WORKFLOW_ID: &str = "workflow-id";
pub const WORKFLOW_VERSION: &str = "workflow-version";
pub const IMAGE_INPUT_NAME: &str = "image-input-name";
pub const WORKFLOW_PARAMETERS: &str = "workflow-parameters";
pub const STREAM_OUTPUT: &str = "stream-output";
pub const DATA_OUTPUT: &str = "data-output";
pub const REALTIME_PROCESSING: &str = "realtime-processing";
pub const DECLARED_FPS: &str = "declared-fps";
pub const PROCESSING_TIMEOUT: &str = "processing-timeout";
pub const REQUESTED_PLAN: &str = "requested-plan";
pub const REQUESTED_REGION: &str = "requested-region";
pub const API_KEY: &str = "api-key";
pub const API_KEY_IN: &str = "api-key-in";
pub const RTSP_URL: &str = "rtsp-url";
pub const MJPEG_URL: &str = "mjpeg-url";
pub const UPLOAD_LOCATION: &str = "upload-location";
pub const UPLOAD_FRAMES: &str = "upload-frames";
pub const TURN_SERVER: &str = "turn-server";

const fn option(name: &'static str, kind: OptionKind, blurb: &'static str) -> OptionSpec {
    OptionSpec { name, kind, blurb }
}

pub const TABLE: &[OptionSpec] = &[
    option(
        WORKFLOW_FILE,
        OptionKind::Text,
        "JSON file with the specification of the workflow; or workspace and workflow-id",
    ),
    option(
        WORKSPACE,
        OptionKind::Text,
        "Name of the workspace that the workflow is in",
    ),
    option(
        WORKFLOW_ID,
        OptionKind::Text,
        "Name of the workflow in its workspace",
    ),
    option(
        WORKFLOW_VERSION,
        OptionKind::Text,
        "Version of the workflow, the latest where it is not set",
    ),
    option(
        IMAGE_INPUT_NAME,
        OptionKind::Text,
        "Name of the workflow's input for frames, image where it is not set",
    ),
    option(
        WORKFLOW_PARAMETERS,
        OptionKind::Object,
        "The workflow's other inputs by name; none where it is not set",
    ),
    option(
        STREAM_OUTPUT,
        OptionKind::Texts,
        "Output of the workflow that comes back as video, the first that is named; no video where it is not set",
    ),
    option(
        DATA_OUTPUT,
        OptionKind::Texts,
        "Outputs of the workflow that come back as data, * for all but pictures; none where it is not set",
    ),
    option(
        REALTIME_PROCESSING,
        OptionKind::Flag,
        "Whether the server skips frames that it has no time for, or takes every one and is told when to go on; true where it is not set, false with upload-location",
    ),
    option(
        DECLARED_FPS,
        OptionKind::Number,
        "Frames a second as told to the workflow; not told where it is not set",
    ),
    option(
        PROCESSING_TIMEOUT,
        OptionKind::Integer,
        "Seconds after which the server ends the session; as long as the server likes where it is not set",
    ),
    option(
        REQUESTED_PLAN,
        OptionKind::Text,
        "Kind of machine that a hosted server is to use; its own choice where it is not set",
    ),
    option(
        REQUESTED_REGION,
        OptionKind::Text,
        "Region that a hosted server is to use; its own choice where it is not set",
    ),
    option(
        API_KEY,
        OptionKind::Text,
        "Key of the account; that of the environment variable ROBOFLOW_API_KEY where it is not set",
    ),
    option(
        API_KEY_IN,
        OptionKind::Text,
        "Where the key is sent: body (the default), header (Authorization: Bearer) or both",
    ),
    option(
        RTSP_URL,
        OptionKind::Text,
        "RTSP source that the server fetches; nothing is sent then",
    ),
    option(
        MJPEG_URL,
        OptionKind::Text,
        "Motion JPEG source that the server fetches; nothing is sent then",
    ),
    option(
        UPLOAD_LOCATION,
        OptionKind::Text,
        "Video file that is uploaded before the server begins; nothing else is sent then",
    ),
    option(
        UPLOAD_FRAMES,
        OptionKind::Text,
        "How pictures of an uploaded file come back: channel (JPEG as data, the default) or track (video)",
    ),
    option(
        TURN_SERVER,
        OptionKind::Text,
        "TURN servers for both ends, in JSON: {urls, username, credential}, {iceServers: […]} or a list; fetched from hosted servers where it is not set",
    ),
];
