//! ICE servers: the forms in which they are written, and where hosted servers have theirs. Asks nobody.

use serde_json::{Map, Value, json};
use url::Url;

/// Servers of Roboflow's own, which have TURN servers for their customers: these names in these domains.
const HOSTED: [&str; 6] = [
    "detect",
    "outline",
    "classify",
    "infer",
    "serverless",
    "asyncinfer",
];
const DOMAINS: [&str; 4] = [
    "roboflow.com",
    "roboflow.one",
    "roboflow.eu",
    "roboflow-eu.one",
];

const MOST_ICE_SERVERS: usize = 16;

/// Where a hosted server's customers ask for TURN servers. The key goes there in the URL, so it is https or nothing.
pub fn turn_config(url: &Url) -> Option<Url> {
    let (name, domain) = url.host_str()?.split_once('.')?;
    let hosted = url.scheme() == "https" && HOSTED.contains(&name) && DOMAINS.contains(&domain);
    let turn_config = hosted.then(|| format!("https://api.{domain}/webrtc_turn_config"))?;
    Url::parse(&turn_config).ok()
}

/// A list as in RTCConfiguration.iceServers, from the forms that there are: that list, the configuration that has it, or
/// one server. What is wrong is told without what it says, which is secret.
pub fn ice_servers(value: &Value, with_account: bool) -> Result<Value, &'static str> {
    let one = std::slice::from_ref(value);
    let (servers, with_account) = match (value, value.get("iceServers")) {
        (Value::Array(servers), _) | (_, Some(Value::Array(servers))) => {
            (servers.as_slice(), false)
        }
        (Value::Object(_), None) => (one, with_account),
        _ => return Err("neither a server nor a list of them"),
    };
    if servers.len() > MOST_ICE_SERVERS {
        return Err("too many servers; 16 are taken");
    }
    let servers = servers.iter().map(|server| {
        let urls = match server.get("urls") {
            Some(Value::String(url)) => vec![url.as_str()],
            Some(Value::Array(urls)) => {
                let urls: Option<_> = urls.iter().map(Value::as_str).collect();
                urls.ok_or("urls of a server are texts")?
            }
            _ => return Err("a server without urls"),
        };
        if urls.is_empty() || urls.len() > MOST_ICE_SERVERS {
            return Err("a server has 1 to 16 urls");
        }
        let mut kept = Map::new();
        kept.insert("urls".into(), json!(urls));
        for field in ["username", "credential"] {
            match server.get(field) {
                Some(Value::String(text)) => drop(kept.insert(field.into(), json!(text))),
                Some(Value::Null) | None if !with_account => {}
                Some(Value::Null) | None => return Err("a server without username or credential"),
                Some(_) => return Err("username and credential of a server are texts"),
            }
        }
        Ok(Value::Object(kept))
    });
    servers.collect()
}
