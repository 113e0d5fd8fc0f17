//! What the list of connections says of each.

use serde::ser::{Serialize, Serializer};

use super::result::iso_8601;

/// One connection, as `GET /connections` and the property `connections` tell it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ConnectionRecord {
    pub connection_id: String,
    pub external_id: Option<String>,
    pub door: &'static str,
    pub state: &'static str,
    pub remote_address: String,
    /// Nanoseconds since the epoch; as JSON an ISO 8601 time.
    #[serde(serialize_with = "as_time")]
    pub created_at: u64,
    pub had_media: bool,
    pub streams: Vec<StreamRecord>,
    /// The client's own data: JSON text, empty where there was none.
    #[serde(serialize_with = "as_json")]
    pub data: String,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StreamRecord {
    pub stream_id: String,
    pub media: &'static str,
    pub codec: &'static str,
}

fn as_time<S: Serializer>(time: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    iso_8601(*time).serialize(serializer)
}

fn as_json<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let value: Option<serde_json::Value> = serde_json::from_str(text).ok();
    value.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_readable_json() {
        let mut record = ConnectionRecord {
            connection_id: "one".into(),
            external_id: None,
            door: "offer",
            state: "playing",
            remote_address: "127.0.0.1:9".into(),
            created_at: 1_795_168_800_123_456_789,
            had_media: true,
            streams: vec![StreamRecord {
                stream_id: "one/0".into(),
                media: "video",
                codec: "vp8",
            }],
            data: r#"{"name":"Ada"}"#.into(),
        };
        assert_eq!(
            serde_json::to_string(&record).unwrap(),
            concat!(
                r#"{"connection_id":"one","external_id":null,"door":"offer","state":"playing","#,
                r#""remote_address":"127.0.0.1:9","created_at":"2026-11-20T10:00:00.123456+00:00","had_media":true,"#,
                r#""streams":[{"stream_id":"one/0","media":"video","codec":"vp8"}],"data":{"name":"Ada"}}"#
            )
        );
        record.data.clear();
        assert!(
            serde_json::to_string(&record)
                .unwrap()
                .ends_with(r#""data":null}"#)
        );
    }
}
