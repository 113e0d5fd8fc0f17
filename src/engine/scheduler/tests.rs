use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;

use super::super::{Engine, InputInfo};
use super::*;

const EAGER: Request = Request {
    patience: Duration::ZERO,
    budget: Duration::from_secs(1),
    alone: false,
};
/// Long enough for every thread of a test to ask; a full batch does not wait for it.
const PATIENT: Request = Request {
    patience: Duration::from_secs(20),
    budget: Duration::from_secs(60),
    alone: false,
};

/// Gives back the first number of each frame.
#[derive(Default)]
struct Echo {
    /// Frames of each run.
    runs: Arc<Mutex<Vec<usize>>>,
    at_once: AtomicUsize,
    most_at_once: Arc<AtomicUsize>,
    /// What the next run does instead.
    fault: Arc<Mutex<Option<Fault>>>,
}

#[derive(Clone, Copy)]
enum Fault {
    Fails,
    Panics,
    Stalls,
}

impl Engine for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn device(&self) -> &str {
        "cpu"
    }

    fn inputs(&self) -> &[InputInfo] {
        &[]
    }

    fn outputs(&self) -> &[String] {
        &[]
    }

    fn metadata(&self, _key: &str) -> Option<&str> {
        None
    }

    fn room(&self) -> Room {
        Room::Own(1)
    }

    fn run(&self, input: &Tensor, _until: Option<Instant>) -> Result<Vec<Tensor>, EngineError> {
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        let fault = self.fault.lock().unwrap().take();
        thread::yield_now();
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        match fault {
            Some(Fault::Fails) => return Err(EngineError::Failed("no luck".into())),
            Some(Fault::Panics) => panic!("the engine's own fault"),
            Some(Fault::Stalls) => thread::sleep(Duration::from_millis(20)),
            None => {}
        }
        let frames = input.shape[0];
        self.runs.lock().unwrap().push(frames);
        let numbers = input.numbers::<f32>().unwrap();
        let firsts: Vec<f32> = numbers.iter().step_by(12).copied().collect();
        Ok(vec![Tensor::new(&[frames, 1], &firsts)])
    }
}

fn model(engine: Echo, room: usize, most_frames: usize) -> Arc<Model> {
    let pool = Arc::new(Pool::new(room, LOOK));
    Arc::new(Model::of_engine(Box::new(engine), pool, most_frames))
}

/// One frame that is nothing but `number`, and what came back for it.
fn infer(model: &Arc<Model>, request: Request, number: f32) -> Result<f32, EngineError> {
    let mut seat = model.wait(request, || true).unwrap();
    fill(&mut seat, number);
    let share = seat.infer(None)?;
    Ok(answer(&share))
}

fn fill(seat: &mut Seat, number: f32) {
    for place in seat.slot().bytes.as_chunks_mut::<4>().0 {
        *place = number.to_ne_bytes();
    }
}

fn answer(share: &Share) -> f32 {
    let own = share.outputs()[0].share(share.index(), share.frames());
    own.unwrap().floats()[0]
}

#[test]
fn frames_of_a_model_share_a_run_and_each_gets_its_own_answer() {
    let engine = Echo::default();
    let runs = engine.runs.clone();
    let model = model(engine, 1, 4);
    for round in 0..20 {
        thread::scope(|scope| {
            for member in 0..4 {
                let model = &model;
                scope.spawn(move || {
                    let number = (round * 4 + member) as f32;
                    assert_eq!(infer(model, PATIENT, number), Ok(number));
                });
            }
        });
    }
    assert_eq!(*runs.lock().unwrap(), [4; 20]);
}

#[test]
fn who_leaves_a_batch_holds_up_nobody() {
    let model = model(Echo::default(), 1, 2);
    let both = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            let seat = model.wait(PATIENT, || true).unwrap();
            both.wait();
            drop(seat);
        });
        let mut seat = model.wait(PATIENT, || true).unwrap();
        both.wait();
        fill(&mut seat, 7.0);
        assert_eq!(answer(&seat.infer(None).unwrap()), 7.0);
    });
    // Nor does a batch that all have left.
    drop(model.wait(EAGER, || true));
    assert_eq!(infer(&model, EAGER, 8.0), Ok(8.0));
}

#[test]
fn a_run_that_fails_or_panics_fails_its_batch_and_the_next_is_served() {
    for (fault, said) in [
        (Fault::Fails, "no luck"),
        (Fault::Panics, "the engine panicked"),
    ] {
        let engine = Echo::default();
        *engine.fault.lock().unwrap() = Some(fault);
        let model = model(engine, 1, 2);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let error = infer(&model, PATIENT, 1.0).unwrap_err();
                    assert_eq!(error, EngineError::Failed(said.into()));
                });
            }
        });
        assert_eq!(infer(&model, EAGER, 2.0), Ok(2.0));
    }
}

#[test]
fn whatever_the_engine_does_every_frame_gets_its_own_answer_or_an_error() {
    let engine = Echo::default();
    let (fault, most) = (engine.fault.clone(), engine.most_at_once.clone());
    let model = model(engine, 2, 3);
    let failed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for stream in 0..8 {
            let (model, fault, failed) = (&model, &fault, &failed);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(stream);
                for frame in 0..500 {
                    if random.u8(..) < 12 {
                        let faults = [Fault::Fails, Fault::Panics, Fault::Stalls];
                        *fault.lock().unwrap() = Some(faults[random.usize(..3)]);
                    }
                    if random.u8(..) < 12 {
                        drop(model.wait(EAGER, || true));
                    }
                    let number = (stream * 1000 + frame) as f32;
                    match infer(model, EAGER, number) {
                        Ok(answer) => assert_eq!(answer, number),
                        Err(_) => {
                            failed.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                }
            });
        }
    });
    assert!(failed.into_inner() > 0);
    assert!(most.load(Ordering::SeqCst) <= 2);
    let state = model.instance_pool().lock().called.len();
    assert_eq!(state, 0);
}

#[test]
fn who_waits_while_others_share_a_run_begins_a_moment_after_it() {
    let engine = Echo::default();
    let fault = engine.fault.clone();
    // Who is not told would sleep for a second.
    let pool = Arc::new(Pool::new(1, Duration::from_secs(1)));
    let model = Arc::new(Model::of_engine(Box::new(engine), pool, 3));
    let first = model.wait(EAGER, || true).unwrap();
    *fault.lock().unwrap() = Some(Fault::Stalls);
    thread::scope(|scope| {
        for number in [1.0, 2.0] {
            let model = &model;
            scope.spawn(move || assert_eq!(infer(model, EAGER, number), Ok(number)));
        }
        while model.instance_pool().lock().waiting.len() < 2 {
            thread::yield_now();
        }
        let began = Instant::now();
        drop(first);
        while fault.lock().unwrap().is_some() {
            thread::yield_now();
        }
        drop(model.wait(EAGER, || true).unwrap());
        let took = began.elapsed();
        // The run takes 20 ms at least, and a quarter of that are the two who shared it waited for.
        assert!(took >= Duration::from_millis(25), "{took:?}");
        assert!(took < Duration::from_millis(500), "{took:?}");
    });
}

#[test]
fn a_frame_that_was_made_ready_before_its_turn_is_the_one_that_is_judged() {
    for most_frames in [1, 2] {
        let model = model(Echo::default(), 1, most_frames);
        thread::scope(|scope| {
            for number in 0..most_frames {
                let model = &model;
                scope.spawn(move || {
                    let mut ready = model.take_slot();
                    for place in ready.bytes.as_chunks_mut::<4>().0 {
                        *place = (number as f32 + 3.0).to_ne_bytes();
                    }
                    let mut seat = model.wait(PATIENT, || true).unwrap();
                    seat.exchange(&mut ready);
                    model.give_slot_back(ready);
                    let share = seat.infer(None).unwrap();
                    assert_eq!(answer(&share), number as f32 + 3.0);
                });
            }
        });
    }
}

#[test]
fn turns_are_given_in_order_and_who_gives_up_holds_up_nobody() {
    let model = model(Echo::default(), 1, 1);
    let first = model.wait(EAGER, || true).unwrap();
    let (tell, order) = mpsc::channel();
    let gone = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for number in 0..3 {
        let (waiting, tell, gone) = (model.clone(), tell.clone(), gone.clone());
        threads.push(thread::spawn(move || {
            // The one in the middle gives up.
            let wanted = || number != 1 || !gone.load(Ordering::SeqCst);
            let seat = waiting.wait(EAGER, wanted);
            tell.send((number, seat.is_some())).unwrap();
        }));
        while model.instance_pool().lock().waiting.len() < number + 1 {
            thread::yield_now();
        }
    }
    gone.store(true, Ordering::SeqCst);
    assert_eq!(order.recv(), Ok((1, false)));
    drop(first);
    assert_eq!(order.recv(), Ok((0, true)));
    assert_eq!(order.recv(), Ok((2, true)));
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}
