//! The KServe protocol, version 2, as bytes: what a server is asked, and what its answers say. Knows no socket.
//!
//! Tensors go as numbers in JSON, or behind it as bytes in little-endian order where the server has the extension
//! `binary_tensor_data`; an answer may have either for each of its outputs.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use half::f16;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::engine::InputInfo;
use crate::engine::tensor::{Element, Number, Tensor, aligned_zeros};

/// The header that tells how much of a body is JSON, where bytes follow.
pub const HEADER_LENGTH: &str = "inference-header-content-length";
/// Numbers of an output that comes as JSON: each takes eight times the memory of the shortest text of one.
const MOST_NUMBERS: usize = 4 << 20;
/// Letters of a server's own words in an error.
const MOST_WORDS: usize = 300;
/// Letters of a name or a version, which are told with every frame, and how many there may be of each.
const MOST_LETTERS: usize = 256;
const MOST_NAMES: usize = 64;

/// An answer that is not what the protocol says, or not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server's answer is not understood: {0}")]
pub struct BadAnswer(String);

/// It is told with each frame that fails, and may be made of what the server sent.
fn bad(what: impl AsRef<str>) -> BadAnswer {
    BadAnswer(cut(what.as_ref()))
}

/// How tensors are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    Binary,
    Json,
}

/// What a server says of a model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata {
    /// None where the server does not name any.
    pub versions: Vec<String>,
    pub inputs: Vec<InputInfo>,
    /// Those that are tensors of numbers.
    pub outputs: Vec<OutputInfo>,
    /// Those that are texts.
    pub parameters: HashMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputInfo {
    pub name: String,
    pub element: Element,
}

/// A body to send to `infer`.
#[derive(Debug, Clone, PartialEq)]
pub struct InferRequest {
    pub body: Bytes,
    /// For [`HEADER_LENGTH`], where bytes follow the JSON.
    pub header_length: Option<usize>,
}

impl InferRequest {
    pub fn new(
        encoding: Encoding,
        name: &str,
        input: &Tensor,
        outputs: &[OutputInfo],
    ) -> InferRequest {
        let binary = encoding == Encoding::Binary;
        let outputs = outputs.iter().map(|output| match binary {
            true => json!({"name": output.name, "parameters": {"binary_data": true}}),
            false => json!({"name": output.name}),
        });
        let outputs: Value = outputs.collect();
        let head = Head {
            inputs: [Sent {
                name,
                shape: &input.shape,
                datatype: input.element.datatype(),
                parameters: binary.then(|| json!({"binary_data_size": input.bytes.len()})),
                data: (!binary).then_some(Numbers(input)),
            }],
            outputs: &outputs,
        };
        let mut body = Vec::with_capacity(if binary { 1024 + input.bytes.len() } else { 0 });
        serde_json::to_writer(&mut body, &head).expect("no key is anything but text");
        let header_length = binary.then_some(body.len());
        if binary {
            let start = body.len();
            body.extend_from_slice(&input.bytes);
            swap_where_big_endian(&mut body[start..], input.element);
        }
        InferRequest {
            body: body.into(),
            header_length,
        }
    }
}

#[derive(Serialize)]
struct Head<'a> {
    inputs: [Sent<'a>; 1],
    outputs: &'a Value,
}

#[derive(Serialize)]
struct Sent<'a> {
    name: &'a str,
    shape: &'a [usize],
    datatype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Numbers<'a>>,
}

/// The numbers of a tensor in one row.
struct Numbers<'a>(&'a Tensor);

impl Serialize for Numbers<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fn row<T: Number + Serialize, S: serde::Serializer>(
            tensor: &Tensor,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(tensor.numbers::<T>().unwrap_or_default())
        }
        let tensor = self.0;
        match tensor.element {
            Element::F32 => row::<f32, S>(tensor, serializer),
            Element::F16 => serializer.collect_seq(tensor.floats().iter()),
            Element::F64 => row::<f64, S>(tensor, serializer),
            Element::U8 => row::<u8, S>(tensor, serializer),
            Element::I8 => row::<i8, S>(tensor, serializer),
            Element::I32 => row::<i32, S>(tensor, serializer),
            Element::I64 => row::<i64, S>(tensor, serializer),
            Element::Bool => serializer.collect_seq(tensor.bytes.iter().map(|&byte| byte != 0)),
        }
    }
}

/// The `outputs` that were asked for, in that order. `header_length` is what the header of that name says.
pub fn tensors(
    body: &[u8],
    header_length: Option<usize>,
    outputs: &[OutputInfo],
) -> Result<Vec<Tensor>, BadAnswer> {
    #[derive(Deserialize)]
    struct Answer {
        outputs: Vec<Received>,
    }

    let (head, rest) = body
        .split_at_checked(header_length.unwrap_or(body.len()))
        .ok_or_else(|| {
            let told = header_length.unwrap_or_default();
            bad(format!("its JSON would be {told} bytes of {}", body.len()))
        })?;
    let answer: Answer = serde_json::from_slice(head).map_err(|err| bad(err.to_string()))?;
    let mut rest = rest;
    let mut found = HashMap::new();
    for output in answer.outputs {
        let bytes = match output.parameters.binary_data_size {
            Some(size) => {
                let (own, others) = rest.split_at_checked(size).ok_or_else(|| {
                    let (name, left) = (&output.name, rest.len());
                    bad(format!(
                        "output \"{name}\" would be {size} bytes of the {left} that are left"
                    ))
                })?;
                rest = others;
                Some(own)
            }
            None => None,
        };
        found.insert(output.name.clone(), (output, bytes));
    }
    if !rest.is_empty() {
        return Err(bad(format!("{} bytes belong to no output", rest.len())));
    }
    let tensor_of = |info: &OutputInfo| {
        let (output, bytes) = found
            .get(&info.name)
            .ok_or_else(|| bad(format!("output \"{}\" is missing", info.name)))?;
        output.tensor(info, *bytes)
    };
    outputs.iter().map(tensor_of).collect()
}

/// An output as it comes.
#[derive(Deserialize)]
struct Received {
    name: String,
    datatype: String,
    shape: Vec<u64>,
    #[serde(default)]
    parameters: Sizes,
    #[serde(default)]
    data: Option<Row>,
}

#[derive(Deserialize, Default)]
struct Sizes {
    binary_data_size: Option<usize>,
}

impl Received {
    fn tensor(&self, info: &OutputInfo, bytes: Option<&[u8]>) -> Result<Tensor, BadAnswer> {
        let (name, element) = (&self.name, info.element);
        if Element::of_datatype(&self.datatype) != Some(element) {
            let datatype = &cut(&self.datatype);
            let what = format!("output \"{name}\" is of {datatype} where {element} was announced");
            return Err(bad(what));
        }
        let sides = self.shape.iter().map(|&side| usize::try_from(side).ok());
        let shape: Option<Vec<usize>> = sides.collect();
        let count = |shape: &Vec<usize>| {
            let mut sides = shape.iter();
            sides.try_fold(1_usize, |product, &side| product.checked_mul(side))
        };
        let (shape, count) = shape
            .and_then(|shape| count(&shape).map(|count| (shape, count)))
            .ok_or_else(|| bad(format!("output \"{name}\" has no shape that could be")))?;
        let misfit = |has: usize| bad(format!("output \"{name}\" of {shape:?} has {has} numbers"));
        match (bytes, &self.data) {
            (Some(bytes), _) => {
                if count.checked_mul(element.size()) != Some(bytes.len()) {
                    return Err(misfit(bytes.len() / element.size()));
                }
                let mut tensor = Tensor::of_bytes(&shape, element, bytes);
                swap_where_big_endian(&mut tensor.bytes, element);
                Ok(tensor)
            }
            (None, Some(Row(row))) if row.len() == count => row_tensor(shape, element, row)
                .ok_or_else(|| bad(format!("output \"{name}\" has what is not of {element}"))),
            (None, Some(Row(row))) => Err(misfit(row.len())),
            (None, None) => Err(bad(format!("output \"{name}\" has no data"))),
        }
    }
}

/// Whole numbers stay exact.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Entry {
    Whole(i64),
    Real(f64),
    Truth(bool),
}

/// None where an entry is not of that kind.
fn row_tensor(shape: Vec<usize>, element: Element, row: &[Entry]) -> Option<Tensor> {
    fn tensor<T: Number>(
        shape: Vec<usize>,
        row: &[Entry],
        number: impl Fn(Entry) -> Option<T>,
    ) -> Option<Tensor> {
        let mut bytes = aligned_zeros(row.len() * size_of::<T>());
        let places: &mut [T] = bytemuck::try_cast_slice_mut(&mut bytes).ok()?;
        for (place, &entry) in places.iter_mut().zip(row) {
            *place = number(entry)?;
        }
        Some(Tensor {
            shape,
            element: T::ELEMENT,
            bytes,
        })
    }
    fn whole<T: TryFrom<i64>>(entry: Entry) -> Option<T> {
        match entry {
            Entry::Whole(number) => number.try_into().ok(),
            Entry::Real(_) | Entry::Truth(_) => None,
        }
    }
    fn real(entry: Entry) -> Option<f64> {
        match entry {
            Entry::Whole(number) => Some(number as f64),
            Entry::Real(number) => Some(number),
            Entry::Truth(_) => None,
        }
    }
    match element {
        Element::F32 => tensor(shape, row, |entry| Some(real(entry)? as f32)),
        Element::F16 => tensor(shape, row, |entry| real(entry).map(f16::from_f64)),
        Element::F64 => tensor(shape, row, real),
        Element::U8 => tensor(shape, row, whole::<u8>),
        Element::I8 => tensor(shape, row, whole::<i8>),
        Element::I32 => tensor(shape, row, whole::<i32>),
        Element::I64 => tensor(shape, row, whole::<i64>),
        Element::Bool => {
            let truth = |entry| match entry {
                Entry::Truth(is) => Some(is.into()),
                Entry::Whole(number @ (0 | 1)) => Some(number as u8),
                Entry::Whole(_) | Entry::Real(_) => None,
            };
            let bytes = tensor::<u8>(shape, row, truth)?;
            Some(Tensor {
                element: Element::Bool,
                ..bytes
            })
        }
    }
}

/// Numbers that may be in rows within rows, read as one row.
struct Row(Vec<Entry>);

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut row = Vec::new();
        Entries(&mut row).deserialize(deserializer)?;
        Ok(Row(row))
    }
}

struct Entries<'a>(&'a mut Vec<Entry>);

impl Entries<'_> {
    fn push<E: serde::de::Error>(self, entry: Entry) -> Result<(), E> {
        if self.0.len() >= MOST_NUMBERS {
            return Err(E::custom(format!(
                "more than {MOST_NUMBERS} numbers come as bytes only"
            )));
        }
        self.0.push(entry);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("numbers")
    }

    fn visit_bool<E: serde::de::Error>(self, truth: bool) -> Result<(), E> {
        self.push(Entry::Truth(truth))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.push(Entry::Whole(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.push(match number.try_into() {
            Ok(number) => Entry::Whole(number),
            Err(_) => Entry::Real(number as f64),
        })
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        self.push(Entry::Real(number))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        while rows.next_element_seed(Entries(self.0))?.is_some() {}
        Ok(())
    }
}

/// What a server says of a model.
pub fn metadata(body: &[u8]) -> Result<Metadata, BadAnswer> {
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        versions: Option<Vec<String>>,
        #[serde(default)]
        inputs: Vec<SaidTensor>,
        #[serde(default)]
        outputs: Vec<SaidTensor>,
        #[serde(default)]
        parameters: Option<HashMap<String, Value>>,
    }
    #[derive(Deserialize)]
    struct SaidTensor {
        name: String,
        datatype: String,
        #[serde(default)]
        shape: Vec<i64>,
    }

    let said: Said = serde_json::from_slice(body).map_err(|err| bad(err.to_string()))?;
    let versions = said.versions.unwrap_or_default();
    let names = said.inputs.iter().chain(&said.outputs);
    let mut texts = names.map(|tensor| &tensor.name).chain(&versions);
    if texts.any(|text| text.len() > MOST_LETTERS) {
        return Err(bad(format!(
            "a name or a version has more than {MOST_LETTERS} letters"
        )));
    }
    if [said.inputs.len(), said.outputs.len(), versions.len()]
        .into_iter()
        .any(|count| count > MOST_NAMES)
    {
        return Err(bad(format!(
            "it has more than {MOST_NAMES} inputs, outputs or versions"
        )));
    }
    let input = |tensor: SaidTensor| {
        let side = |&side: &i64| match side {
            -1 => Ok(None),
            side => usize::try_from(side)
                .map(Some)
                .map_err(|_| bad(format!("input \"{}\" has a side of {side}", tensor.name))),
        };
        let shape = tensor.shape.iter().map(side).collect::<Result<_, _>>()?;
        let element = Element::of_datatype(&tensor.datatype);
        Ok(InputInfo {
            name: tensor.name,
            // A server that was told no shape has none to tell.
            shape: Some(shape).filter(|shape: &Vec<_>| !shape.is_empty()),
            element: element.ok_or_else(|| cut(&tensor.datatype)),
        })
    };
    let output = |tensor: SaidTensor| {
        // Texts, say, which nothing here could use.
        let element = Element::of_datatype(&tensor.datatype)?;
        Some(OutputInfo {
            name: tensor.name,
            element,
        })
    };
    let parameters = said.parameters.unwrap_or_default().into_iter();
    let texts = parameters.filter_map(|(key, value)| match value {
        Value::String(text) => Some((key, text)),
        _ => None,
    });
    Ok(Metadata {
        versions,
        inputs: said
            .inputs
            .into_iter()
            .map(input)
            .collect::<Result<_, _>>()?,
        outputs: said.outputs.into_iter().filter_map(output).collect(),
        parameters: texts.collect(),
    })
}

/// Whether a server says of itself that it has the extension for bytes; None where it says nothing of it.
pub fn encoding(body: &[u8]) -> Option<Encoding> {
    #[derive(Deserialize)]
    struct Said {
        extensions: Vec<String>,
    }

    let said: Said = serde_json::from_slice(body).ok()?;
    let named = said
        .extensions
        .iter()
        .any(|name| name == "binary_tensor_data");
    named.then_some(Encoding::Binary)
}

/// The models that a server says it has, as `NAME` or `NAME/VERSION`.
pub fn index(body: &[u8]) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Said {
        name: String,
        #[serde(default)]
        version: Option<String>,
    }

    let said: Vec<Said> = serde_json::from_slice(body).ok()?;
    let named = said.into_iter().map(|model| match model.version {
        Some(version) if !version.is_empty() => format!("{}/{version}", model.name),
        _ => model.name,
    });
    Some(named.map(|name| cut(&name)).collect())
}

/// A server's own words about what went wrong, cut where they are many.
pub fn words(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Said {
        error: String,
    }

    match serde_json::from_slice::<Said>(body) {
        Ok(said) => cut(&said.error),
        Err(_) => cut(&String::from_utf8_lossy(
            &body[..body.len().min(4 * MOST_WORDS)],
        )),
    }
}

/// On one line, and not longer than is read.
fn cut(text: &str) -> String {
    let line = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    let mut shown: String = line.clone().take(MOST_WORDS).collect();
    if line.count() > MOST_WORDS {
        shown.push('…');
    }
    shown
}

/// The wire has the least significant byte first.
fn swap_where_big_endian(bytes: &mut [u8], element: Element) {
    if cfg!(target_endian = "big") {
        bytes
            .chunks_exact_mut(element.size())
            .for_each(<[u8]>::reverse);
    }
}

#[cfg(test)]
mod tests;
