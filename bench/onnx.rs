//! Models of any size for the benches, written here: seeded weights, no training, no download.

use std::fs;
use std::path::{Path, PathBuf};

/// A detector of YOLOv8's layout, 640×640, some 0.6 GMAC: several milliseconds on a core.
pub fn detector() -> PathBuf {
    let mut graph = Graph::new();
    let mut at = graph.conv("images", 3, 16, 3, 2);
    at = graph.node("Relu", &[&at], &[]);
    for (from, to, stride) in [
        (16, 32, 2),
        (32, 32, 1),
        (32, 32, 1),
        (32, 64, 2),
        (64, 64, 2),
    ] {
        at = graph.conv(&at, from, to, 3, stride);
        at = graph.node("Relu", &[&at], &[]);
    }
    at = graph.conv(&at, 64, 12, 1, 1);
    at = graph.node("Sigmoid", &[&at], &[]);
    let scale = graph.floats(&[], &[0.3]);
    at = graph.node("Mul", &[&at, &scale], &[]);
    let shape = graph.integers(&[0, 12, -1]);
    graph.end("Reshape", &[&at, &shape]);
    graph.write("detector", [640, 640], &[12, 1600])
}

/// A classifier with 41 MB of weights that takes next to no time.
pub fn heavy() -> PathBuf {
    const WIDTH: usize = 3200;
    let mut graph = Graph::new();
    let mut at = graph.node("GlobalAveragePool", &["images"], &[]);
    at = graph.conv(&at, 3, WIDTH, 1, 1);
    at = graph.conv(&at, WIDTH, WIDTH, 1, 1);
    let shape = graph.integers(&[0, WIDTH as i64]);
    graph.end("Reshape", &[&at, &shape]);
    graph.write("heavy", [64, 64], &[WIDTH])
}

/// A classifier whose time is mostly that of reading its 328 MB of weights, whatever the number of frames: each of several costs a
/// fraction of one alone, on cores too.
pub fn dense() -> PathBuf {
    const WIDTH: usize = 3200;
    let mut graph = Graph::new();
    let mut at = graph.node("GlobalAveragePool", &["images"], &[]);
    let shape = graph.integers(&[0, 3]);
    at = graph.node("Reshape", &[&at, &shape], &[]);
    for layer in 0..8 {
        let from = if layer == 0 { 3 } else { WIDTH };
        let weights = graph.weights(&[from, WIDTH], from);
        at = graph.node("MatMul", &[&at, &weights], &[]);
        at = graph.node("Relu", &[&at], &[]);
    }
    let weights = graph.weights(&[WIDTH, WIDTH], WIDTH);
    graph.end("MatMul", &[&at, &weights]);
    graph.write("dense", [64, 64], &[WIDTH])
}

/// What is written of a `GraphProto`.
struct Graph {
    nodes: Vec<u8>,
    constants: Vec<u8>,
    names: usize,
    random: fastrand::Rng,
}

impl Graph {
    fn new() -> Self {
        Graph {
            nodes: Vec::new(),
            constants: Vec::new(),
            names: 0,
            random: fastrand::Rng::with_seed(640),
        }
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("t{}", self.names)
    }

    fn conv(&mut self, input: &str, from: usize, to: usize, side: usize, stride: i64) -> String {
        let weights = self.weights(&[to, from, side, side], from * side * side);
        let pad = side as i64 / 2;
        // One engine wants told what is the default.
        let lists = [
            ("dilations", vec![1; 2]),
            ("pads", vec![pad; 4]),
            ("strides", vec![stride; 2]),
        ];
        self.node("Conv", &[input, &weights], &lists)
    }

    /// Random ones, such that what is summed of so many stays within bounds.
    fn weights(&mut self, shape: &[usize], summed: usize) -> String {
        let reach = (2.0 / summed as f32).sqrt();
        let random = &mut self.random;
        let weights: Vec<f32> = (0..shape.iter().product())
            .map(|_| (random.f32() * 2.0 - 1.0) * reach)
            .collect();
        self.floats(shape, &weights)
    }

    fn node(&mut self, kind: &str, inputs: &[&str], lists: &[(&str, Vec<i64>)]) -> String {
        let output = self.name();
        self.put(kind, inputs, &output, lists);
        output
    }

    fn end(&mut self, kind: &str, inputs: &[&str]) {
        self.put(kind, inputs, "output0", &[]);
    }

    fn put(&mut self, kind: &str, inputs: &[&str], output: &str, lists: &[(&str, Vec<i64>)]) {
        let mut node = Vec::new();
        for input in inputs {
            bytes(&mut node, 1, input.as_bytes());
        }
        bytes(&mut node, 2, output.as_bytes());
        bytes(&mut node, 4, kind.as_bytes());
        for (name, values) in lists {
            let mut attribute = Vec::new();
            bytes(&mut attribute, 1, name.as_bytes());
            for value in values {
                number(&mut attribute, 8, *value);
            }
            number(&mut attribute, 20, 7);
            bytes(&mut node, 5, &attribute);
        }
        bytes(&mut self.nodes, 1, &node);
    }

    fn floats(&mut self, shape: &[usize], values: &[f32]) -> String {
        let raw: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.constant(shape, 1, &raw)
    }

    fn integers(&mut self, values: &[i64]) -> String {
        let raw: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.constant(&[values.len()], 7, &raw)
    }

    fn constant(&mut self, shape: &[usize], kind: i64, raw: &[u8]) -> String {
        let name = self.name();
        let mut tensor = Vec::new();
        for &side in shape {
            number(&mut tensor, 1, side as i64);
        }
        number(&mut tensor, 2, kind);
        bytes(&mut tensor, 8, name.as_bytes());
        bytes(&mut tensor, 9, raw);
        bytes(&mut self.constants, 5, &tensor);
        name
    }

    /// The file, for any number of frames of that height and width.
    fn write(self, name: &str, [height, width]: [i64; 2], output: &[usize]) -> PathBuf {
        let mut graph = self.nodes;
        bytes(&mut graph, 2, name.as_bytes());
        graph.extend(self.constants);
        bytes(&mut graph, 11, &value("images", &[3, height, width]));
        let output: Vec<i64> = output.iter().map(|&side| side as i64).collect();
        bytes(&mut graph, 12, &value("output0", &output));
        let mut opset = Vec::new();
        number(&mut opset, 2, 17);
        let mut model = Vec::new();
        number(&mut model, 1, 8);
        bytes(&mut model, 7, &graph);
        bytes(&mut model, 8, &opset);
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench"));
        fs::create_dir_all(folder).expect("target is ours");
        let path = folder.join(format!("{name}.onnx"));
        fs::write(&path, model).expect("target is ours");
        path
    }
}

/// A `ValueInfoProto` of floats, the first dimension any.
fn value(name: &str, sides: &[i64]) -> Vec<u8> {
    let mut shape = Vec::new();
    let mut batch = Vec::new();
    bytes(&mut batch, 2, b"batch");
    bytes(&mut shape, 1, &batch);
    for &side in sides {
        let mut dimension = Vec::new();
        number(&mut dimension, 1, side);
        bytes(&mut shape, 1, &dimension);
    }
    let mut tensor = Vec::new();
    number(&mut tensor, 1, 1);
    bytes(&mut tensor, 2, &shape);
    let mut kind = Vec::new();
    bytes(&mut kind, 1, &tensor);
    let mut value = Vec::new();
    bytes(&mut value, 1, name.as_bytes());
    bytes(&mut value, 2, &kind);
    value
}

/// A field of Protocol Buffers that is a number.
fn number(out: &mut Vec<u8>, field: u64, value: i64) {
    varint(out, field << 3);
    varint(out, value as u64);
}

/// A field of Protocol Buffers that is text, bytes or a message.
fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
