use proptest::prelude::*;

use super::*;

const INPUT: (u32, u32) = (64, 32);

const ALL: [Decoder; 9] = [
    Decoder::YoloV8,
    Decoder::YoloV5,
    Decoder::End2End,
    Decoder::Ssd,
    Decoder::Torchvision,
    Decoder::Detr,
    Decoder::RtDetr,
    Decoder::Classification,
    Decoder::Raw,
];

fn tensor(shape: &[usize], data: &[f32]) -> Tensor {
    Tensor::new(shape, data)
}

/// What a decoder finds in outputs of these names, shapes and numbers.
fn decode_all(
    decoder: Decoder,
    outputs: &[(&str, &[usize], &[f32])],
    confidence: f32,
) -> Vec<Candidate> {
    let thresholds = Thresholds {
        confidence,
        iou: 0.5,
    };
    let mut found = Vec::new();
    let tensors = outputs.iter().map(|(_, shape, data)| tensor(shape, data));
    let tensors: Vec<_> = tensors.collect();
    let outputs = outputs.iter().zip(&tensors);
    let outputs = outputs.map(|((name, ..), tensor)| output(tensor, name));
    decoder
        .decode(&outputs.collect::<Vec<_>>(), INPUT, thresholds, &mut found)
        .unwrap();
    found
}

fn output<'a>(tensor: &'a Tensor, name: &'a str) -> Output<'a> {
    Output::of(tensor, 0, 1).unwrap().named(name)
}

fn decode(decoder: Decoder, shape: &[usize], data: &[f32], confidence: f32) -> Vec<Candidate> {
    decode_all(decoder, &[("output0", shape, data)], confidence)
}

fn candidate(corners: [f32; 4], score: f32, class_id: u32) -> Candidate {
    let [x0, y0, x1, y1] = corners;
    Candidate {
        corners: Corners { x0, y0, x1, y1 },
        score,
        class_id,
    }
}

fn auto(shape: &[usize], labels: Option<usize>, task: Option<&str>) -> Result<Decoder, String> {
    auto_of(&[("output0", shape)], labels, task)
}

fn auto_of(
    outputs: &[(&str, &[usize])],
    labels: Option<usize>,
    task: Option<&str>,
) -> Result<Decoder, String> {
    let tensors = outputs
        .iter()
        .map(|(_, shape)| Tensor::zeros(shape, Element::F32));
    let tensors: Vec<_> = tensors.collect();
    let outputs = outputs.iter().zip(&tensors);
    let outputs: Vec<_> = outputs
        .map(|((name, _), tensor)| output(tensor, name))
        .collect();
    let resolved = DecoderChoice::Auto.resolve(&outputs, labels, task);
    resolved.map_err(|err| err.to_string())
}

#[test]
fn columns_of_yolov8_are_read_as_centre_size_and_class_scores() {
    #[rustfmt::skip]
    let data = [
        10.0, 40.0, 41.0, // x
        10.0, 20.0, 20.0, // y
        4.0, 8.0, 8.0,    // width
        6.0, 8.0, 8.0,    // height
        0.2, 0.9, 0.8,    // class 0
        0.6, 0.1, 0.1,    // class 1
    ];
    let found = decode(Decoder::YoloV8, &[1, 6, 3], &data, 0.5);
    let first = candidate([36.0, 16.0, 44.0, 24.0], 0.9, 0);
    let second = candidate([8.0, 7.0, 12.0, 13.0], 0.6, 1);
    assert_eq!(found, [first, second]);
}

#[test]
fn rows_of_yolov5_have_the_product_of_object_and_class_as_score() {
    let data = [
        10.0, 10.0, 4.0, 6.0, 0.5, 0.2, 0.8, //
        30.0, 10.0, 4.0, 6.0, 0.5, 0.4, 0.3,
    ];
    let found = decode(Decoder::YoloV5, &[1, 2, 7], &data, 0.3);
    assert_eq!(found, [candidate([8.0, 7.0, 12.0, 13.0], 0.4, 1)]);
}

#[test]
fn end_to_end_boxes_are_neither_merged_nor_read_where_unused() {
    let data = [
        0.0, 0.0, 8.0, 8.0, 0.5, 2.0, //
        0.0, 0.0, 8.0, 8.0, 0.7, 2.0, //
        0.0, 0.0, 0.0, 0.0, 0.0, 0.0, //
        1.0, 1.0, 2.0, 2.0, 0.9, -1.0,
    ];
    let found = decode(Decoder::End2End, &[1, 4, 6], &data, 0.0);
    let scores: Vec<_> = found.iter().map(|c| (c.score, c.class_id)).collect();
    assert_eq!(scores, [(0.7, 2), (0.5, 2)]);
}

#[test]
fn probabilities_are_reported_as_they_come_over_the_whole_input() {
    let found = decode(Decoder::Classification, &[1, 3], &[0.1, 0.7, 0.2], 0.15);
    let whole = [0.0, 0.0, 64.0, 32.0];
    assert_eq!(found, [candidate(whole, 0.7, 1), candidate(whole, 0.2, 2)]);
}

#[test]
fn logits_become_probabilities() {
    let found = decode(Decoder::Classification, &[1, 2], &[-3.0, 1000.0], 0.0);
    assert_eq!((found[0].class_id, found[0].score), (1, 1.0));
    let even = decode(Decoder::Classification, &[1, 2], &[5.0, 5.0], 0.0);
    assert_eq!((even[0].score, even[1].score), (0.5, 0.5));
}

#[test]
fn a_classification_reports_its_five_best() {
    let data: Vec<f32> = (0..40).map(|i| i as f32 / 40.0).collect();
    let found = decode(Decoder::Classification, &[1, 40], &data, 0.0);
    let classes: Vec<_> = found.iter().map(|c| c.class_id).collect();
    assert_eq!(classes, [39, 38, 37, 36, 35]);
}

#[test]
fn scores_and_boxes_that_are_not_finite_do_not_count() {
    #[rustfmt::skip]
    let data = [
        10.0, f32::NAN, 30.0,
        10.0, 10.0, 10.0,
        4.0, 4.0, f32::INFINITY,
        4.0, 4.0, 4.0,
        f32::NAN, 0.9, 0.9,
        0.6, 0.1, 0.1,
        f32::INFINITY, 0.1, 0.1,
    ];
    let found = decode(Decoder::YoloV8, &[1, 7, 3], &data, 0.25);
    assert_eq!(found, [candidate([8.0, 8.0, 12.0, 12.0], 0.6, 1)]);
}

#[test]
fn auto_tells_layouts_by_shape() {
    assert_eq!(auto(&[1, 84, 8400], None, None), Ok(Decoder::YoloV8));
    assert_eq!(
        auto(&[1, 84, 8400], Some(80), Some("detect")),
        Ok(Decoder::YoloV8)
    );
    assert_eq!(auto(&[1, 25200, 85], Some(80), None), Ok(Decoder::YoloV5));
    assert_eq!(auto(&[1, 300, 6], Some(80), None), Ok(Decoder::End2End));
    assert_eq!(
        auto(&[1, 1000], Some(1000), None),
        Ok(Decoder::Classification)
    );
}

#[test]
fn boxes_of_tensorflow_are_shares_of_the_input_top_first_and_as_many_as_it_says() {
    let boxes = [
        0.25, 0.125, 0.5, 0.25, //
        0.0, 0.0, 1.0, 1.0, //
        0.0, 0.0, 0.5, 0.5,
    ];
    let outputs: [(&str, &[usize], &[f32]); 5] = [
        ("num_detections:0", &[1], &[2.0]),
        ("raw_detection_boxes:0", &[1, 3, 4], &[9.0; 12]),
        ("detection_scores:0", &[1, 3], &[0.9, 0.6, 0.8]),
        ("detection_classes:0", &[1, 3], &[17.0, 1.0, 1.0]),
        ("detection_boxes:0", &[1, 3, 4], &boxes),
    ];
    let first = candidate([8.0, 8.0, 16.0, 16.0], 0.9, 17);
    let second = candidate([0.0, 0.0, 64.0, 32.0], 0.6, 1);
    assert_eq!(decode_all(Decoder::Ssd, &outputs, 0.5), [first, second]);
}

#[test]
fn a_box_that_is_no_number_does_not_turn_shares_into_pixels() {
    let boxes = [0.25, 0.125, 0.5, 0.25, f32::NAN, 0.0, f32::INFINITY, 1.0];
    let outputs: [(&str, &[usize], &[f32]); 3] = [
        ("detection_scores:0", &[1, 2], &[0.9, 0.8]),
        ("detection_classes:0", &[1, 2], &[17.0, 1.0]),
        ("detection_boxes:0", &[1, 2, 4], &boxes),
    ];
    let first = candidate([8.0, 8.0, 16.0, 16.0], 0.9, 17);
    assert_eq!(decode_all(Decoder::Ssd, &outputs, 0.5), [first]);
}

#[test]
fn outputs_that_no_name_tells_apart_are_boxes_classes_and_scores() {
    let outputs: [(&str, &[usize], &[f32]); 4] = [
        (
            "TFLite_Detection_PostProcess",
            &[1, 1, 4],
            &[0.0, 0.0, 0.5, 0.5],
        ),
        ("TFLite_Detection_PostProcess:1", &[1, 1], &[3.0]),
        ("TFLite_Detection_PostProcess:2", &[1, 1], &[0.75]),
        ("TFLite_Detection_PostProcess:3", &[1], &[1.0]),
    ];
    let found = decode_all(Decoder::Ssd, &outputs, 0.5);
    assert_eq!(found, [candidate([0.0, 0.0, 32.0, 16.0], 0.75, 3)]);
}

#[test]
fn boxes_of_torchvision_are_pixels_left_first_and_may_be_none() {
    let outputs: [(&str, &[usize], &[f32]); 3] = [
        (
            "boxes",
            &[2, 4],
            &[1.0, 2.0, 30.0, 20.0, 0.0, 0.0, 1.0, 1.0],
        ),
        ("labels", &[2], &[4.0, 5.0]),
        ("scores", &[2], &[0.9, 0.8]),
    ];
    let first = candidate([1.0, 2.0, 30.0, 20.0], 0.9, 4);
    let second = candidate([0.0, 0.0, 1.0, 1.0], 0.8, 5);
    assert_eq!(
        decode_all(Decoder::Torchvision, &outputs, 0.5),
        [first, second]
    );
    let none: [(&str, &[usize], &[f32]); 3] = [
        ("boxes", &[0, 4], &[]),
        ("labels", &[0], &[]),
        ("scores", &[0], &[]),
    ];
    assert_eq!(decode_all(Decoder::Torchvision, &none, 0.5), []);
}

#[test]
fn a_query_of_detr_finds_one_class_or_nothing() {
    let outputs: [(&str, &[usize], &[f32]); 2] = [
        ("logits", &[1, 2, 3], &[0.0, 2.0, -9.0, 1.0, 1.0, 9.0]),
        (
            "pred_boxes",
            &[1, 2, 4],
            &[0.5, 0.5, 0.25, 0.5, 0.5, 0.5, 1.0, 1.0],
        ),
    ];
    let found = decode_all(Decoder::Detr, &outputs, 0.5);
    let [found] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(found.class_id, 1);
    assert_eq!(
        found.corners,
        candidate([24.0, 8.0, 40.0, 24.0], 0.0, 0).corners
    );
    assert!((found.score - 0.88079).abs() < 1e-4, "{}", found.score);
}

#[test]
fn a_query_of_rt_detr_finds_every_class_that_is_likely_enough() {
    let outputs: [(&str, &[usize], &[f32]); 2] = [
        ("pred_boxes", &[1, 1, 4], &[0.5, 0.5, 0.25, 0.5]),
        ("logits", &[1, 1, 3], &[0.0, 2.0, -9.0]),
    ];
    let found = decode_all(Decoder::RtDetr, &outputs, 0.5);
    let scores: Vec<_> = found.iter().map(|c| (c.class_id, c.score)).collect();
    assert_eq!(scores.len(), 2);
    assert!(scores[0].0 == 1 && (scores[0].1 - 0.88079).abs() < 1e-4);
    assert_eq!(scores[1], (0, 0.5));
    let sure: [(&str, &[usize], &[f32]); 2] =
        [outputs[0], ("logits", &[1, 1, 3], &[40.0, 2.0, -9.0])];
    assert_eq!(decode_all(Decoder::RtDetr, &sure, 1.0).len(), 1);
    assert_eq!(decode_all(Decoder::RtDetr, &sure, 0.0).len(), 3);
}

#[test]
fn rt_detr_of_one_output_has_scores_for_logits() {
    let data = [0.5, 0.5, 0.25, 0.5, 0.1, 0.9];
    let found = decode(Decoder::RtDetr, &[1, 1, 6], &data, 0.5);
    assert_eq!(found, [candidate([24.0, 8.0, 40.0, 24.0], 0.9, 1)]);
}

#[test]
fn boxes_beyond_a_block_of_columns_are_read_like_the_first() {
    let count = 1500;
    let mut data = vec![0.0; 6 * count];
    for i in [0, 511, 512, 1499] {
        for (row, value) in [(0, 32.0), (1, 16.0), (2, 1.0), (3, 1.0), (5, 0.9)] {
            data[row * count + i] = value;
        }
        data[i] = 1.0 + i as f32 / 30.0;
    }
    let found = decode(Decoder::YoloV8, &[1, 6, count], &data, 0.5);
    let found: Vec<_> = found.iter().map(|c| (c.corners.x0, c.class_id)).collect();
    let x0 = |i: usize| 1.0 + i as f32 / 30.0 - 0.5;
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(found[..2], [(x0(0), 1), (x0(511), 1)]);
    assert_eq!(found[2], (x0(1499), 1));
}

#[test]
fn auto_tells_lists_by_name() {
    let tensorflow: [(&str, &[usize]); 4] = [
        ("detection_boxes", &[1, 100, 4]),
        ("detection_classes", &[1, 100]),
        ("detection_scores", &[1, 100]),
        ("num_detections", &[1]),
    ];
    assert_eq!(auto_of(&tensorflow, Some(90), None), Ok(Decoder::Ssd));
    let torchvision: [(&str, &[usize]); 3] =
        [("boxes", &[0, 4]), ("labels", &[0]), ("scores", &[0])];
    assert_eq!(auto_of(&torchvision, None, None), Ok(Decoder::Torchvision));
    let unknown: [(&str, &[usize]); 3] = [
        ("boxes", &[1, 9, 4]),
        ("classes", &[1, 9]),
        ("scores", &[1, 9]),
    ];
    let err = auto_of(&unknown, None, None).unwrap_err();
    assert!(err.ends_with("set decoder to ssd or torchvision"), "{err}");
}

#[test]
fn auto_tells_transformers_by_name_and_labels() {
    let outputs = |rows: usize, columns: usize| [[1, rows, columns], [1, rows, 4]];
    let of = |shapes: &[[usize; 3]; 2], labels| {
        let [logits, boxes] = shapes;
        auto_of(&[("logits", logits), ("pred_boxes", boxes)], labels, None)
    };
    assert_eq!(of(&outputs(100, 92), Some(91)), Ok(Decoder::Detr));
    assert_eq!(of(&outputs(300, 80), Some(80)), Ok(Decoder::RtDetr));
    assert_eq!(of(&outputs(100, 92), None), Ok(Decoder::Detr));
    assert_eq!(of(&outputs(300, 80), None), Ok(Decoder::RtDetr));
    let err = of(&outputs(50, 80), None).unwrap_err();
    assert!(err.ends_with("set decoder to detr or rtdetr"), "{err}");
    assert_eq!(auto(&[1, 300, 84], Some(80), None), Ok(Decoder::RtDetr));
    assert_eq!(auto(&[1, 300, 84], None, None), Ok(Decoder::RtDetr));
    assert_eq!(
        auto(&[1, 200, 12], Some(8), Some("detect")),
        Ok(Decoder::RtDetr)
    );
}

#[test]
fn auto_refuses_a_shape_that_does_not_fit_the_labels() {
    let err = auto(&[1, 13, 21], Some(8), None).unwrap_err();
    assert_eq!(
        err,
        "decoder=auto could not tell the layout of its outputs \"output0\" [1, 13, 21] of FP32 with 8 \
         labels; set decoder to yolov8, yolov5, end2end, ssd, torchvision, detr, rtdetr, \
         classification, raw"
    );
}

#[test]
fn one_class_of_yolov5_is_told_from_end_to_end_by_the_task_only() {
    let err = auto(&[1, 252, 6], Some(1), None).unwrap_err();
    assert!(
        err.ends_with("with 1 label; set decoder to yolov5 or end2end"),
        "{err}"
    );
    assert_eq!(
        auto(&[1, 252, 6], Some(1), Some("detect")),
        Ok(Decoder::End2End)
    );
    assert_eq!(auto(&[1, 300, 6], Some(1), None), Ok(Decoder::End2End));
}

#[test]
fn a_decoder_refuses_an_output_of_another_layout() {
    let choice = DecoderChoice::Fixed(Decoder::YoloV8);
    let two = Tensor::zeros(&[2, 84, 8400], Element::F32);
    let err = choice
        .resolve(&[output(&two, "x")], None, None)
        .unwrap_err();
    assert_eq!(
        err.to_string(),
        "decoder=yolov8 reads an output of [1, 4+C, N], and its outputs are \"x\" [2, 84, 8400] of FP32"
    );
}

#[test]
fn nicks_name_decoders_both_ways() {
    for (nick, choice) in NICKS {
        assert_eq!(nick.parse(), Ok(choice));
        assert_eq!(choice.to_string(), nick);
    }
    let err = "yolo".parse::<DecoderChoice>().unwrap_err();
    assert!(err.contains("\"yolo\"") && err.contains("end2end"), "{err}");
}

proptest! {
    #[test]
    fn no_more_boxes_are_read_than_there_are_whatever_the_count_says(
        boxes in 0usize..4,
        count in prop_oneof![any::<f32>(), 0f32..9.0],
    ) {
        let outputs: [(&str, &[usize], &[f32]); 4] = [
            ("detection_boxes", &[1, boxes, 4], &[0.0, 0.0, 1.0, 1.0].repeat(boxes)),
            ("detection_classes", &[1, boxes], &vec![1.0; boxes]),
            ("detection_scores", &[1, boxes], &vec![0.9; boxes]),
            ("num_detections", &[1], &[count]),
        ];
        let found = decode_all(Decoder::Ssd, &outputs, 0.5);
        prop_assert_eq!(found.len(), boxes.min(count.max(0.0) as usize));
    }

    #[test]
    fn no_tensors_make_a_decoder_panic_or_report_nonsense(
        shapes in prop::collection::vec(prop_oneof![
            1 => prop::collection::vec(0usize..7, 0..5),
            // What belongs together, which chance seldom gives.
            3 => prop::sample::select(vec![
                vec![1, 5, 4], vec![1, 5], vec![1, 5], vec![1], vec![1, 5, 3], vec![5, 4], vec![5],
            ]),
        ], 0..7),
        names in prop::collection::vec("(detection_)?(boxes|scores|classes|labels|logits|num|x)", 7),
        values in prop::collection::vec(prop_oneof![any::<f32>(), 0f32..9.0], 1..64),
        confidence in any::<f32>(),
        iou in any::<f32>(),
    ) {
        let tensors: Vec<_> = shapes.iter().map(|shape| {
            let len = shape.iter().product::<usize>();
            let values: Vec<_> = values.iter().copied().cycle().take(len).collect();
            Tensor::new(shape, &values)
        }).collect();
        let outputs: Vec<_> = tensors.iter().zip(&names).map(|(t, name)| output(t, name)).collect();
        for decoder in ALL {
            let mut found = Vec::new();
            let thresholds = Thresholds { confidence, iou };
            if decoder.decode(&outputs, INPUT, thresholds, &mut found).is_ok() {
                for c in found {
                    prop_assert!(c.corners.is_box() && (0.0..=1.0).contains(&c.score));
                }
            }
            let _ = decoder.takes_several(&outputs);
        }
        let _ = DecoderChoice::Auto.resolve(&outputs, None, None);
        let _ = DecoderChoice::Auto.resolve(&outputs, Some(1), Some("detect"));
    }
}
