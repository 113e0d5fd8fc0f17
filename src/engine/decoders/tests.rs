use proptest::prelude::*;

use super::*;

const INPUT: (u32, u32) = (64, 32);

const ALL: [Decoder; 5] = [
    Decoder::YoloV8,
    Decoder::YoloV5,
    Decoder::End2End,
    Decoder::Classification,
    Decoder::Raw,
];

fn tensor(shape: &[usize], data: &[f32]) -> Tensor {
    Tensor {
        shape: shape.to_vec(),
        data: data.to_vec(),
    }
}

fn decode(decoder: Decoder, shape: &[usize], data: &[f32], confidence: f32) -> Vec<Candidate> {
    let thresholds = Thresholds {
        confidence,
        iou: 0.5,
    };
    let mut found = Vec::new();
    decoder
        .decode(&tensor(shape, data), INPUT, thresholds, &mut found)
        .unwrap();
    found
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
    let resolved = DecoderChoice::Auto.resolve(shape, labels, task);
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
fn auto_refuses_a_shape_that_does_not_fit_the_labels() {
    let err = auto(&[1, 13, 21], Some(8), None).unwrap_err();
    assert_eq!(
        err,
        "decoder=auto could not tell the layout of output [1, 13, 21] with 8 labels; \
         set decoder to yolov8, yolov5, end2end, classification, raw"
    );
}

#[test]
fn one_class_of_yolov5_is_told_from_end_to_end_by_the_task_only() {
    let err = auto(&[1, 300, 6], Some(1), None).unwrap_err();
    assert!(
        err.ends_with("with 1 label; set decoder to yolov5 or end2end"),
        "{err}"
    );
    assert_eq!(
        auto(&[1, 300, 6], Some(1), Some("detect")),
        Ok(Decoder::End2End)
    );
}

#[test]
fn a_decoder_refuses_an_output_of_another_layout() {
    let choice = DecoderChoice::Fixed(Decoder::YoloV8);
    let err = choice.resolve(&[2, 84, 8400], None, None).unwrap_err();
    assert_eq!(
        err.to_string(),
        "decoder=yolov8 reads an output of [1, 4+C, N], this one is [2, 84, 8400]"
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
    fn no_tensor_makes_a_decoder_panic_or_report_nonsense(
        shape in prop::collection::vec(0usize..9, 0..5),
        excess in -1isize..2,
        values in prop::collection::vec(any::<f32>(), 1..64),
        confidence in any::<f32>(),
        iou in any::<f32>(),
    ) {
        let mut shape = shape;
        if let Some(first) = shape.first_mut() {
            *first = 1;
        }
        let len = (shape.iter().product::<usize>() as isize + excess).max(0) as usize;
        let output = Tensor { data: values.into_iter().cycle().take(len).collect(), shape };
        for decoder in ALL {
            let mut found = Vec::new();
            let thresholds = Thresholds { confidence, iou };
            if decoder.decode(&output, INPUT, thresholds, &mut found).is_ok() {
                prop_assert!(excess <= 0);
                for c in found {
                    prop_assert!(c.corners.is_box() && (0.0..=1.0).contains(&c.score));
                }
            }
        }
        let _ = DecoderChoice::Auto.resolve(&output.shape, None, None);
        let _ = DecoderChoice::Auto.resolve(&output.shape, Some(1), Some("detect"));
    }
}
