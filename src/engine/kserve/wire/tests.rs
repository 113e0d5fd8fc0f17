//! Files in tests/data/kserve are what Triton 2.51.0 and MLServer 1.7.1 sent.

use half::f16;
use proptest::prelude::*;

use super::*;

const TRITON: &[u8] = include_bytes!("../../../../tests/data/kserve/triton_infer.bin");
const TRITON_JSON: usize = 312;
const MLSERVER: &[u8] = include_bytes!("../../../../tests/data/kserve/mlserver_infer.json");

fn output(name: &str, element: Element) -> OutputInfo {
    OutputInfo {
        name: name.into(),
        element,
    }
}

fn all() -> Vec<OutputInfo> {
    vec![
        output("halves", Element::F16),
        output("counts", Element::I64),
        output("flags", Element::Bool),
    ]
}

fn halves() -> Tensor {
    let halves = [0.25, 0.5, 0.75, 1.0, 0.0, 2.0].map(f16::from_f32);
    Tensor::new(&[2, 3], &halves)
}

fn flags() -> Tensor {
    Tensor::of_bytes(&[2, 3], Element::Bool, &[0, 0, 1, 1, 0, 1])
}

/// The reason for which this JSON, with nothing behind it, is refused where a float is wanted as output `a`.
fn refusal(json: &str) -> String {
    let wanted = [output("a", Element::F32)];
    tensors(json.as_bytes(), None, &wanted).unwrap_err().0
}

#[test]
fn what_triton_sends_as_bytes_is_read() {
    let read = tensors(TRITON, Some(TRITON_JSON), &all()).unwrap();
    let counts = Tensor::new(&[2], &[1_i64, 2]);
    assert_eq!(read, [halves(), counts, flags()]);
}

#[test]
fn what_mlserver_sends_as_json_is_read() {
    let read = tensors(MLSERVER, None, &all()).unwrap();
    let counts = Tensor::new(&[2, 1], &[1_i64, 2]);
    assert_eq!(read, [halves(), counts, flags()]);
}

#[test]
fn outputs_come_in_the_order_in_which_they_are_wanted_and_others_are_left() {
    let wanted = [
        output("flags", Element::Bool),
        output("halves", Element::F16),
    ];
    let read = tensors(TRITON, Some(TRITON_JSON), &wanted).unwrap();
    assert_eq!(read, [flags(), halves()]);
}

#[test]
fn rows_within_rows_are_one_row_and_whole_numbers_are_exact() {
    let json = r#"{"outputs":[{"name":"a","datatype":"INT64","shape":[2,2],
        "data":[[9007199254740993,-1],[0,-9223372036854775808]]}]}"#;
    let read = tensors(json.as_bytes(), None, &[output("a", Element::I64)]).unwrap();
    let numbers = [9007199254740993, -1, 0, i64::MIN];
    assert_eq!(read, [Tensor::new(&[2, 2], &numbers)]);
}

#[test]
fn an_output_that_is_missing_or_of_another_kind_is_named() {
    let absent = tensors(TRITON, Some(TRITON_JSON), &[output("boxes", Element::F32)]);
    assert_eq!(absent.unwrap_err().0, "output \"boxes\" is missing");
    let other = tensors(TRITON, Some(TRITON_JSON), &[output("halves", Element::F32)]);
    assert_eq!(
        other.unwrap_err().0,
        "output \"halves\" is of FP16 where FP32 was announced"
    );
}

#[test]
fn an_answer_that_ends_early_or_late_is_refused() {
    for length in 0..TRITON.len() {
        let cut = tensors(&TRITON[..length], Some(TRITON_JSON), &all());
        assert!(cut.is_err(), "{length}");
    }
    let longer = [TRITON, &[0; 3]].concat();
    let refused = tensors(&longer, Some(TRITON_JSON), &all()).unwrap_err();
    assert_eq!(refused.0, "3 bytes belong to no output");
    let beyond = tensors(TRITON, Some(usize::MAX), &all()).unwrap_err();
    assert!(beyond.0.contains("of 346"), "{beyond}");
}

#[test]
fn sizes_that_do_not_fit_each_other_are_refused() {
    let sized = |shape: &str, size: usize| {
        let json = format!(
            r#"{{"outputs":[{{"name":"a","datatype":"FP32","shape":{shape},"parameters":{{"binary_data_size":{size}}}}}]}}"#
        );
        let body = [json.as_bytes(), &[0; 8]].concat();
        tensors(&body, Some(json.len()), &[output("a", Element::F32)])
    };
    assert!(sized("[1,2]", 8).is_ok());
    let few = sized("[1,3]", 8).unwrap_err();
    assert_eq!(few.0, "output \"a\" of [1, 3] has 2 numbers");
    assert!(sized("[1,1]", 8).is_err());
    assert!(sized("[1,2]", 4).is_err());
    assert!(sized("[1,2]", usize::MAX).is_err());
    assert!(
        sized("[4294967296,4294967296]", 8)
            .unwrap_err()
            .0
            .contains("no shape")
    );
    assert!(sized("[4611686018427387904]", 8).is_err());
    assert!(sized("[0,18446744073709551615,2]", 0).is_err());
    assert!(sized("[-1,2]", 8).is_err());
}

#[test]
fn json_that_is_no_row_of_such_numbers_is_refused() {
    let with = |data: &str| {
        format!(r#"{{"outputs":[{{"name":"a","datatype":"FP32","shape":[2],"data":{data}}}]}}"#)
    };
    assert_eq!(refusal(&with("[1]")), "output \"a\" of [2] has 1 numbers");
    assert_eq!(
        refusal(&with("[1,true]")),
        "output \"a\" has what is not of FP32"
    );
    assert!(refusal(&with("[1,null]")).contains("expected numbers"));
    assert!(refusal(&with("[1,\"2\"]")).contains("expected numbers"));
    assert_eq!(refusal(&with("null")), "output \"a\" has no data");
    let deep = ["[".repeat(10_000), "]".repeat(10_000)].concat();
    assert!(refusal(&with(&deep)).contains("recursion"));
    assert!(refusal("[]").contains("invalid"));
}

#[test]
fn a_number_that_its_kind_cannot_hold_is_refused() {
    for (datatype, element, number) in [
        ("UINT8", Element::U8, "256"),
        ("INT8", Element::I8, "-129"),
        ("INT32", Element::I32, "1.5"),
        ("INT64", Element::I64, "9223372036854775808"),
        ("BOOL", Element::Bool, "2"),
    ] {
        let json = format!(
            r#"{{"outputs":[{{"name":"a","datatype":"{datatype}","shape":[1],"data":[{number}]}}]}}"#
        );
        let refused = tensors(json.as_bytes(), None, &[output("a", element)]).unwrap_err();
        assert_eq!(
            refused.0,
            format!("output \"a\" has what is not of {datatype}")
        );
    }
}

#[test]
fn more_numbers_than_are_kept_are_refused_while_they_are_read() {
    let many = "0,".repeat(MOST_NUMBERS);
    let json =
        format!(r#"{{"outputs":[{{"name":"a","datatype":"FP32","shape":[1],"data":[{many}0]}}]}}"#);
    assert!(refusal(&json).contains("come as bytes only"));
}

#[test]
fn a_request_has_its_bytes_behind_the_json() {
    let input = Tensor::new(&[1, 2], &[1.0_f32, -2.0]);
    let request = InferRequest::new(Encoding::Binary, "images", &input, &all());
    let (head, bytes) = request.body.split_at(request.header_length.unwrap());
    let head: Value = serde_json::from_slice(head).unwrap();
    let expected = json!({
        "inputs": [{"name": "images", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}],
        "outputs": [
            {"name": "halves", "parameters": {"binary_data": true}},
            {"name": "counts", "parameters": {"binary_data": true}},
            {"name": "flags", "parameters": {"binary_data": true}},
        ],
    });
    assert_eq!(head, expected);
    assert_eq!(bytes, [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]);
}

#[test]
fn a_request_without_bytes_has_its_numbers_in_the_json() {
    let sent = |input: Tensor| {
        let request = InferRequest::new(Encoding::Json, "a", &input, &all()[..1]);
        assert_eq!(request.header_length, None);
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["outputs"], json!([{"name": "halves"}]));
        assert_eq!(body["inputs"][0].get("parameters"), None);
        body["inputs"][0]["data"].clone()
    };
    assert_eq!(
        sent(Tensor::new(&[2], &[0.5_f32, -2.0])),
        json!([0.5, -2.0])
    );
    assert_eq!(sent(halves()), json!([0.25, 0.5, 0.75, 1.0, 0.0, 2.0]));
    assert_eq!(
        sent(flags()),
        json!([false, false, true, true, false, true])
    );
    assert_eq!(sent(Tensor::new(&[1], &[i64::MAX])), json!([i64::MAX]));
}

#[test]
fn metadata_of_both_servers_is_read() {
    let triton = include_bytes!("../../../../tests/data/kserve/triton_metadata.json");
    let read = metadata(triton).unwrap();
    assert_eq!(read.versions, ["1"]);
    let input = InputInfo {
        name: "images".into(),
        shape: Some(vec![None, Some(3), Some(288), Some(384)]),
        element: Ok(Element::F32),
    };
    assert_eq!(read.inputs, [input]);
    assert_eq!(read.outputs, [output("output0", Element::F32)]);

    let mlserver = include_bytes!("../../../../tests/data/kserve/mlserver_metadata.json");
    let read = metadata(mlserver).unwrap();
    assert_eq!(read.versions, [""; 0]);
    assert_eq!(read.outputs, [output("halves", Element::F16)]);
}

#[test]
fn texts_among_outputs_are_left_out_and_texts_among_parameters_are_kept() {
    let read = metadata(
        br#"{"inputs":[{"name":"i","datatype":"BYTES","shape":[1]}],
             "outputs":[{"name":"t","datatype":"BYTES","shape":[1]},{"name":"n","datatype":"FP32","shape":[1]}],
             "parameters":{"names":"{0: 'a'}","stride":32}}"#,
    )
    .unwrap();
    assert_eq!(read.inputs[0].element, Err("BYTES".into()));
    assert_eq!(read.outputs, [output("n", Element::F32)]);
    let parameters = [("names".into(), "{0: 'a'}".into())];
    assert_eq!(read.parameters, parameters.into());
}

#[test]
fn metadata_that_would_fill_every_result_is_refused() {
    let long = "a".repeat(MOST_LETTERS + 1);
    let tensor = json!({"name": "a", "datatype": "FP32", "shape": [1]});
    for said in [
        json!({"versions": [long]}),
        json!({"inputs": [{"name": long, "datatype": "FP32", "shape": [1]}]}),
        json!({"versions": vec!["1"; MOST_NAMES + 1]}),
        json!({"outputs": vec![tensor; MOST_NAMES + 1]}),
    ] {
        let refused = metadata(said.to_string().as_bytes()).unwrap_err();
        assert!(refused.0.contains("more than"), "{refused}");
    }
}

#[test]
fn a_refusal_is_short_whatever_was_sent() {
    let long = "a".repeat(100_000);
    let data = json!({"outputs": [{"name": "a", "datatype": "FP32", "shape": [1], "data": long}]});
    let datatype = json!({"outputs": [{"name": "a", "datatype": long, "shape": [1], "data": [1]}]});
    let shape = json!({"outputs": [{"name": "a", "datatype": "FP32", "shape": vec![1; 100_000], "data": []}]});
    for said in [data, datatype, shape] {
        let length = refusal(&said.to_string()).chars().count();
        assert!(length <= MOST_WORDS + 1, "{length}");
    }
}

#[test]
fn only_a_server_that_says_so_is_known_to_take_bytes() {
    let triton = include_bytes!("../../../../tests/data/kserve/triton_server.json");
    assert_eq!(encoding(triton), Some(Encoding::Binary));
    let mlserver = include_bytes!("../../../../tests/data/kserve/mlserver_server.json");
    assert_eq!(encoding(mlserver), None);
    assert_eq!(encoding(b"<html>"), None);
}

#[test]
fn models_of_an_index_are_named() {
    let triton = br#"[{"name":"shapes","version":"1","state":"READY"},{"name":"b"},{"name":"c","version":""}]"#;
    assert_eq!(index(triton).unwrap(), ["shapes/1", "b", "c"]);
    assert_eq!(index(b"{}"), None);
}

#[test]
fn words_of_a_server_are_told_on_one_line_and_cut() {
    let triton = br#"{"error":"pixels are never negative"}"#;
    assert_eq!(words(triton), "pixels are never negative");
    assert_eq!(words(b"<html>\r\n no\x1b[1m"), "<html>   no [1m");
    assert_eq!(words(b"\xff"), "\u{fffd}");
    let long = words("ä".repeat(100_000).as_bytes());
    assert_eq!(long.chars().count(), MOST_WORDS + 1);
    assert!(long.ends_with('…'));
}

proptest! {
    #[test]
    fn nothing_that_a_server_sends_is_more_than_refused(
        body in proptest::collection::vec(any::<u8>(), 0..600),
        header_length in proptest::option::of(0..700_usize),
    ) {
        let _ = tensors(&body, header_length, &all());
        let _ = metadata(&body);
        let _ = (encoding(&body), index(&body), words(&body));
    }

    /// What is nearly right goes further.
    #[test]
    fn a_real_answer_with_bytes_changed_is_read_or_refused(
        changes in proptest::collection::vec((0..TRITON.len(), any::<u8>()), 1..8),
        cut in 0..TRITON.len(),
        header_length in 0..400_usize,
    ) {
        let mut body = TRITON.to_vec();
        for (at, byte) in changes {
            body[at] = byte;
        }
        for length in [header_length, TRITON_JSON] {
            for body in [&body[..], &body[..cut]] {
                if let Ok(read) = tensors(body, Some(length), &all()) {
                    prop_assert!(read.iter().all(Tensor::is_whole));
                }
            }
        }
    }

    #[test]
    fn shapes_and_sizes_of_any_kind_are_read_or_refused(
        shape in proptest::collection::vec(any::<u64>().prop_map(|side| side >> (side % 64)), 0..6),
        size in any::<u64>().prop_map(|size| size >> (size % 64)),
        behind in 0..64_usize,
    ) {
        let json = json!({"outputs": [{
            "name": "a", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": size},
        }]}).to_string();
        let body = [json.as_bytes(), &vec![0; behind]].concat();
        if let Ok(read) = tensors(&body, Some(json.len()), &[output("a", Element::F32)]) {
            prop_assert!(read[0].is_whole());
            prop_assert_eq!(read[0].bytes.len(), behind);
        }
    }
}
