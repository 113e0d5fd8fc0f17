//! Arguments that an application gives to a connection: properties of a chain's elements, and an event for
//! whoever in the chain reads it.

use std::collections::BTreeSet;

use gst::glib;
use gst::prelude::*;

/// Fields of one call, and of all calls together.
const MAX_ARGS: usize = 64;

/// Why arguments are refused; none of them was set then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    #[error("at most {MAX_ARGS} arguments are kept")]
    TooMany,
    #[error("{field}: no chain has an element named {element:?}")]
    NoElement { field: String, element: String },
    #[error("{field}: {element} has no property {property:?}")]
    NoProperty {
        field: String,
        element: String,
        property: String,
    },
    #[error("{field}: {value} is no text, number, truth value or list of one of these")]
    Json { field: String, value: String },
    #[error(
        "{0:?} is no name of an argument; letters, digits, -, _ and . are right, a letter first"
    )]
    Name(String),
    #[error("{0}: clients may not set this; property client-args lists what they may")]
    Closed(String),
    #[error("{field}: this property cannot be set once the element exists")]
    ReadOnly { field: String },
    #[error("{field}={value}: {wanted} is right")]
    Value {
        field: String,
        value: String,
        wanted: String,
    },
}

/// Arguments that a client gave as JSON; of elements' properties those that are `open` to clients.
pub fn from_json(
    fields: &serde_json::Map<String, serde_json::Value>,
    open: &[String],
) -> Result<gst::Structure, ArgsError> {
    // Each is looked for among those before it.
    if fields.len() > MAX_ARGS {
        return Err(ArgsError::TooMany);
    }
    let mut args = gst::Structure::new_empty("args");
    for (field, value) in fields {
        let mut letters = field.chars();
        let named = letters
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic())
            && letters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if !named {
            return Err(ArgsError::Name(field.chars().take(64).collect()));
        }
        if field.contains('.') && !open.contains(field) {
            return Err(ArgsError::Closed(field.chars().take(64).collect()));
        }
        let value = from_json_value(value).ok_or_else(|| ArgsError::Json {
            field: field.clone(),
            value: value.to_string().chars().take(64).collect(),
        })?;
        args.set_value(field.as_str(), value);
    }
    Ok(args)
}

/// What a value is made of; numbers from the narrowest to the widest, then what is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Int,
    Int64,
    Double,
    Bool,
    Text,
}

/// A GStreamer array holds values of one type, those of arrays within it too.
fn from_json_value(value: &serde_json::Value) -> Option<glib::SendValue> {
    let mut kinds = BTreeSet::new();
    collect_kinds(value, &mut kinds);
    let widest = kinds.last().copied();
    match kinds.len() <= 1 || widest <= Some(Kind::Double) {
        true => from_json_value_as(value, widest),
        false => None,
    }
}

fn collect_kinds(value: &serde_json::Value, kinds: &mut BTreeSet<Kind>) {
    use serde_json::Value;
    let kind = match value {
        Value::Bool(_) => Kind::Bool,
        Value::String(_) => Kind::Text,
        Value::Number(number) => match number.as_i64().map(i32::try_from) {
            Some(Ok(_)) => Kind::Int,
            Some(Err(_)) => Kind::Int64,
            None => Kind::Double,
        },
        Value::Array(items) => return items.iter().for_each(|item| collect_kinds(item, kinds)),
        Value::Null | Value::Object(_) => return,
    };
    kinds.insert(kind);
}

/// Numbers become that kind of number.
fn from_json_value_as(
    value: &serde_json::Value,
    number_kind: Option<Kind>,
) -> Option<glib::SendValue> {
    use serde_json::Value;
    Some(match value {
        Value::Bool(value) => value.to_send_value(),
        Value::Number(number) => match number_kind {
            Some(Kind::Int) => i32::try_from(number.as_i64()?).ok()?.to_send_value(),
            Some(Kind::Int64) => number.as_i64()?.to_send_value(),
            _ => number.as_f64()?.to_send_value(),
        },
        // A GStreamer string ends with the first NUL.
        Value::String(text) if !text.contains('\0') => text.to_send_value(),
        Value::Array(items) => {
            let items = items.iter();
            let items: Option<Vec<_>> = items
                .map(|item| from_json_value_as(item, number_kind))
                .collect();
            gst::Array::new(items?).to_send_value()
        }
        _ => return None,
    })
}

/// The arguments a connection has been given so far; newer values win.
#[derive(Debug, Clone, Default)]
pub struct Args {
    fields: Vec<(String, glib::SendValue)>,
}

/// A property of an element, and a value that fits it.
struct Setting {
    element: gst::Object,
    property: glib::ParamSpec,
    value: glib::Value,
}

impl Setting {
    fn apply(&self) {
        self.element
            .set_property_from_value(self.property.name(), &self.value);
    }
}

impl Args {
    pub fn read(structure: &gst::StructureRef) -> Self {
        let fields = structure
            .iter()
            .map(|(name, value)| (name.to_string(), value.clone()));
        Self {
            fields: fields.collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// These with newer ones over them.
    pub fn with(&self, newer: &Self) -> Result<Self, ArgsError> {
        let mut fields = self.fields.clone();
        for (name, value) in &newer.fields {
            match fields.iter_mut().find(|(known, _)| known == name) {
                Some((_, old)) => *old = value.clone(),
                None => fields.push((name.clone(), value.clone())),
            }
        }
        match fields.len() {
            0..=MAX_ARGS => Ok(Self { fields }),
            _ => Err(ArgsError::TooMany),
        }
    }

    /// Sets what is meant for elements of this chain; what was checked before does not fail.
    pub fn apply(&self, chain: &gst::Bin) {
        for (field, value) in &self.fields {
            if let Some((name, property)) = field.rsplit_once('.')
                && let Some(element) = chain.by_name(name)
                && let Ok(setting) = setting(field, element, property, value)
            {
                setting.apply();
            }
        }
    }

    /// What stands for itself: the fields without a dot.
    pub fn event(&self) -> Option<gst::Structure> {
        let mut structure = gst::Structure::new_empty("rtc-args");
        for (name, value) in &self.fields {
            if !name.contains('.') {
                structure.set_value(name.as_str(), value.clone());
            }
        }
        (structure.n_fields() > 0).then_some(structure)
    }

    /// Whether the fields `element.property` mean something to these chains: each to one of them at least.
    pub fn check(&self, chains: &[gst::Bin]) -> Result<(), ArgsError> {
        for (field, value) in &self.fields {
            let Some((name, property)) = field.rsplit_once('.') else {
                continue;
            };
            let mut known = false;
            for element in chains.iter().filter_map(|chain| chain.by_name(name)) {
                setting(field, element, property, value)?;
                known = true;
            }
            if !known {
                return Err(ArgsError::NoElement {
                    field: field.clone(),
                    element: name.to_owned(),
                });
            }
        }
        Ok(())
    }
}

fn setting(
    field: &str,
    element: gst::Element,
    property: &str,
    value: &glib::Value,
) -> Result<Setting, ArgsError> {
    let spec = element
        .find_property(property)
        .ok_or_else(|| ArgsError::NoProperty {
            field: field.to_owned(),
            element: element.name().to_string(),
            property: property.to_owned(),
        })?;
    let flags = spec.flags();
    // A name or parent is changed only outside of a bin.
    if matches!(property, "name" | "parent")
        || !flags.contains(glib::ParamFlags::WRITABLE)
        || flags.contains(glib::ParamFlags::CONSTRUCT_ONLY)
    {
        return Err(ArgsError::ReadOnly {
            field: field.to_owned(),
        });
    }
    let value = convert(value, &spec).ok_or_else(|| ArgsError::Value {
        field: field.to_owned(),
        value: match value.get::<&str>() {
            Ok(text) => text.to_owned(),
            Err(_) => format!("{value:?}"),
        },
        wanted: wanted(&spec),
    })?;
    Ok(Setting {
        element: element.upcast(),
        property: spec,
        value,
    })
}

/// A text as gst-launch reads it; anything else where GLib knows how. `None` for what does not fit.
fn convert(value: &glib::Value, spec: &glib::ParamSpec) -> Option<glib::Value> {
    let converted = match value.get::<Option<&str>>() {
        Ok(Some(text)) if spec.value_type() != glib::Type::STRING => {
            glib::Value::deserialize_with_pspec(text, spec).ok()?
        }
        _ if value.type_().is_a(spec.value_type()) => value.clone(),
        _ => value.transform_with_type(spec.value_type()).ok()?,
    };
    (same_number(value, &converted) && spec.value_is_valid(&converted)).then_some(converted)
}

/// GLib lets -1 become 4294967295 and 2.5 become 2.
fn same_number(before: &glib::Value, after: &glib::Value) -> bool {
    let number = |value: &glib::Value| value.transform::<f64>().ok()?.get::<f64>().ok();
    match (number(before), number(after)) {
        (Some(before), Some(after)) => (before - after).abs() <= before.abs().max(1.0) * 1e-6,
        _ => true,
    }
}

fn wanted(spec: &glib::ParamSpec) -> String {
    macro_rules! range {
        ($($type:ty),*) => {
            $(if let Some(spec) = spec.downcast_ref::<$type>() {
                return format!("a number from {} to {}", spec.minimum(), spec.maximum());
            })*
        };
    }
    range!(
        glib::ParamSpecInt,
        glib::ParamSpecUInt,
        glib::ParamSpecInt64,
        glib::ParamSpecUInt64,
        glib::ParamSpecFloat,
        glib::ParamSpecDouble
    );
    if let Some(spec) = spec.downcast_ref::<glib::ParamSpecEnum>() {
        let class = spec.enum_class();
        let nicks: Vec<_> = class.values().iter().map(|value| value.nick()).collect();
        return format!("one of {}", nicks.join(", "));
    }
    format!("a {}", spec.value_type())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(description: &str) -> gst::Bin {
        gst::init().unwrap();
        gst::parse::bin_from_description(description, false).unwrap()
    }

    fn args(text: &str) -> Args {
        Args::read(&text.parse::<gst::Structure>().unwrap())
    }

    #[test]
    fn texts_and_numbers_become_what_the_property_is() {
        let chain = chain("identity name=i ! videoconvert name=c");
        let given = args(
            r#"a, i.sleep-time="5", i.drop-probability=(double)0.25, c.n-threads=2, i.silent=true, c.dither=(string)bayer"#,
        );
        given.check(std::slice::from_ref(&chain)).unwrap();
        given.apply(&chain);
        let element = chain.by_name("i").unwrap();
        assert_eq!(element.property::<u32>("sleep-time"), 5);
        assert_eq!(element.property::<f32>("drop-probability"), 0.25);
        assert!(element.property::<bool>("silent"));
        let convert = chain.by_name("c").unwrap();
        assert_eq!(convert.property::<u32>("n-threads"), 2);
        let dither = convert.property_value("dither");
        let (_, dither) = glib::EnumValue::from_value(&dither).unwrap();
        assert_eq!(dither.nick(), "bayer");
    }

    #[test]
    fn what_does_not_fit_is_named_and_nothing_is_set() {
        let chain = chain("identity name=i silent=false");
        for (text, named) in [
            ("a, nobody.silent=true", "\"nobody\""),
            ("a, i.loudness=3", "\"loudness\""),
            ("a, i.last-message=(string)x", "i.last-message"),
            (
                "a, i.sleep-time=(string)soon",
                "i.sleep-time=soon: a number from 0 to 4294967295",
            ),
            ("a, i.sleep-time=-1", "i.sleep-time"),
            ("a, i.sleep-time=2.5", "i.sleep-time"),
            ("a, i.drop-probability=2.0", "from 0 to 1"),
        ] {
            let given = args(&format!("{text}, i.silent=true"));
            let error = given.check(std::slice::from_ref(&chain)).unwrap_err();
            assert!(error.to_string().contains(named), "{text}: {error}");
        }
        assert!(!chain.by_name("i").unwrap().property::<bool>("silent"));
    }

    #[test]
    fn newer_values_win_and_so_many_are_kept() {
        gst::init().unwrap();
        let first = args("a, threshold=1, text=(string)x");
        let both = first.with(&args("a, threshold=2")).unwrap();
        let event = both.event().unwrap();
        assert_eq!(event.get::<i32>("threshold"), Ok(2));
        assert_eq!(event.get::<&str>("text"), Ok("x"));
        let many: Vec<String> = (0..MAX_ARGS).map(|i| format!("f{i}=1")).collect();
        let many = args(&format!("a, {}", many.join(", ")));
        assert_eq!(first.with(&many).unwrap_err(), ArgsError::TooMany);
        assert!(args("a, i.silent=true").event().is_none());
    }

    #[test]
    fn lists_hold_values_of_one_type_and_numbers_become_the_widest() {
        gst::init().unwrap();
        let list = |items: serde_json::Value| {
            let fields = serde_json::Map::from_iter([("list".to_owned(), items)]);
            let args = from_json(&fields, &[])?;
            let list = args.get::<gst::ArrayRef>("list").unwrap();
            Ok(list.iter().map(|item| item.type_()).collect::<Vec<_>>())
        };
        use glib::Type;
        use serde_json::json;
        for (items, types) in [
            (json!([]), vec![]),
            (json!([1, 2]), vec![Type::I32; 2]),
            (json!([1, 5_000_000_000_u64]), vec![Type::I64; 2]),
            (json!([1, 2.5, u64::MAX]), vec![Type::F64; 3]),
            (json!(["a", "b"]), vec![Type::STRING; 2]),
            (json!([[1], [2.5], []]), vec![gst::Array::static_type(); 3]),
        ] {
            assert_eq!(list(items.clone()), Ok(types), "{items}");
        }
        for items in [json!([1, "a"]), json!([true, 1]), json!([[1], ["a"]])] {
            let refused = list(items.clone());
            assert!(matches!(refused, Err(ArgsError::Json { .. })), "{items}");
        }
    }

    #[test]
    fn clients_are_told_of_too_many_before_any_is_looked_at() {
        gst::init().unwrap();
        let fields = |count: usize| {
            let fields = (0..count).map(|n| (format!("f{n}"), n.into()));
            fields.collect::<serde_json::Map<_, _>>()
        };
        let kept = from_json(&fields(MAX_ARGS), &[]).unwrap();
        assert_eq!(kept.n_fields(), MAX_ARGS);
        let many = from_json(&fields(20_000), &[]);
        assert_eq!(many.unwrap_err(), ArgsError::TooMany);
    }
}
