//! Whole trainings of a small network.

use std::cell::Cell;

use sartor_engine::{Array, Options, Program};
use sartor_ir::{Graph, Op, Softmax, Tensor};

use crate::{
    BatchNorm, Config, Distillation, Epoch, Job, Keep, LastBatch, Loss, Method, Shape, Step,
    TrainError, Trained, Watch, config::tests::config, fixture, fixture::Stripes, train,
};

/// Keeps what it is told; stops after some iterations.
#[derive(Default)]
struct Log {
    steps: Vec<Step>,
    epochs: Vec<Epoch>,
    checkpoint: Vec<u8>,
    stop_after: Option<usize>,
    asked: Cell<usize>,
}

impl Watch for Log {
    fn stopped(&self) -> bool {
        self.asked.set(self.asked.get() + 1);
        self.stop_after.is_some_and(|it| self.steps.len() >= it)
    }

    fn step(&mut self, step: &Step) -> Result<(), TrainError> {
        self.steps.push(*step);
        Ok(())
    }

    fn epoch(&mut self, epoch: &Epoch) -> Result<(), TrainError> {
        self.epochs.push(*epoch);
        Ok(())
    }

    fn keep(&mut self, checkpoint: &[u8]) -> Result<(), TrainError> {
        self.checkpoint = checkpoint.to_vec();
        Ok(())
    }
}

fn job<'a>(graph: &'a Graph, config: &'a Config) -> Job<'a> {
    Job {
        graph,
        teacher: None,
        train: &Stripes(52),
        validation: Some(&Stripes(30)),
        config,
        window: 4,
        resume: None,
    }
}

fn run(config: &Config) -> (Trained, Log) {
    let mut log = Log::default();
    let trained = train(&job(&fixture::network(), config), &mut log).unwrap();
    (trained, log)
}

fn text(graph: &Graph) -> String {
    let constants = graph.values().filter_map(|(_, it)| Some((&it.name, it.constant.as_ref()?)));
    let bytes: Vec<_> = constants.map(|(name, it)| (name, it.data().to_vec())).collect();
    format!("{}{bytes:?}", sartor_ir::print(graph))
}

#[test]
fn it_learns_and_changes_numbers_only() {
    let before = fixture::network();
    let (trained, log) = run(&Config { epochs: 6, ..config() });
    let last = log.epochs.last().unwrap();
    assert!(last.validation.unwrap().accuracy.unwrap() > 99.0, "{last:?}");
    assert!(last.train.unwrap().loss < 0.5 * log.epochs[1].train.unwrap().loss);
    assert_eq!(log.epochs.len(), 7);
    assert_eq!((trained.iterations, log.steps.len()), (42, 42));
    assert_eq!(log.steps.iter().filter(|it| it.window.is_some()).count(), 10);
    let shape = |it: &Graph| {
        let values: Vec<_> = it.values().map(|it| (it.1.name.clone(), it.1.ty.clone())).collect();
        let nodes: Vec<_> = it.nodes().map(|it| it.1.clone()).collect();
        (values, nodes, it.outputs().to_vec())
    };
    assert_eq!(shape(&before), shape(&trained.graph));
    let moved = |name: &str| {
        let id = before.find_value(name).unwrap();
        before.constant(id) != trained.graph.constant(id)
    };
    assert!(["w", "u", "mean", "variance", "offset"].iter().all(|it| moved(it)));
}

#[test]
fn what_is_told_of_the_end_is_what_the_network_does() {
    let (trained, log) = run(&config());
    let program =
        Program::prepare(&trained.graph, &[vec![30, 1, 6, 6]], &Options::default()).unwrap();
    let batch = crate::Samples::read(&Stripes(30), &(0..30).collect::<Vec<_>>(), None).unwrap();
    let scores = program.run(&batch.inputs).unwrap()[0].to_f32();
    let right = (0..30).filter(|i| {
        let row = &scores[3 * i..3 * i + 3];
        row.iter().all(|it| *it <= row[i % 3])
    });
    let accuracy = 100.0 * right.count() as f64 / 30.0;
    assert_eq!(log.epochs[3].validation.unwrap().accuracy, Some(accuracy));
}

#[test]
fn a_paused_training_ends_with_the_same_bytes() {
    let adam = Method::AdamW { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 };
    let configs = [
        config(),
        Config { keep: Keep::Best, accumulate: 3, method: adam, ..config() },
        Config {
            last_batch: LastBatch::Drop,
            batch_norm: BatchNorm::Frozen,
            clip: Some(0.5),
            ..config()
        },
    ];
    for config in configs {
        let graph = fixture::network();
        let (whole, log) = run(&config);
        for stop in [0, 1, log.steps.len() / 2, log.steps.len() - 1] {
            let mut first = Log { stop_after: Some(stop), ..Log::default() };
            let paused = train(&job(&graph, &config), &mut first).unwrap();
            assert!(!paused.finished && first.steps.len() == stop);
            let mut second = Log::default();
            let resume = Some(first.checkpoint.as_slice()).filter(|it| !it.is_empty());
            let rest = train(&Job { resume, ..job(&graph, &config) }, &mut second).unwrap();
            assert!(rest.finished);
            assert_eq!(text(&rest.graph), text(&whole.graph), "stopped after {stop}");
            assert_eq!((&rest.history, rest.kept), (&whole.history, whole.kept));
            assert_eq!([first.steps, second.steps].concat(), log.steps);
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        text(&pool.install(|| run(&config())).0.graph)
    };
    let one = with(1);
    assert_eq!(with(2), one);
    assert_eq!(with(3), one);
}

#[test]
fn accumulated_batches_are_one_large_batch() {
    // Without batch statistics and with exact division the two differ by rounding alone.
    let large = Config { batch: 13, batch_norm: BatchNorm::Frozen, epochs: 1, ..config() };
    let small = Config { batch: 1, accumulate: 13, ..large.clone() };
    let (large, small) = (run(&large).1, run(&small).1);
    assert_eq!((large.steps.len(), small.steps.len()), (4, 4));
    for (a, b) in large.steps.iter().zip(&small.steps) {
        assert!((a.mean.loss - b.mean.loss).abs() < 1e-5, "{a:?} {b:?}");
        assert!((a.norm - b.norm).abs() < 1e-4 * a.norm, "{a:?} {b:?}");
    }
}

#[test]
fn the_best_epoch_is_kept() {
    // A rate that grows beyond all use after the first epoch.
    let mut config = Config { keep: Keep::Best, ..config() };
    config.schedule.peak = 1e-3;
    config.schedule.shape = Shape::Step { milestones: vec![1.0], factor: 3e3 };
    let (trained, log) = run(&config);
    let best = log.epochs.iter().rfind(|it| it.best).unwrap();
    assert!(trained.kept < 3, "{:?}", log.epochs);
    assert_eq!(trained.kept, best.epoch);
    let again = Config { epochs: 1, keep: Keep::Last, ..config.clone() };
    let judged = train(&job(&trained.graph, &again), &mut Log::default()).unwrap();
    assert_eq!(judged.history[0].validation, best.validation);
}

#[test]
fn a_teacher_needs_no_labels() {
    struct Unlabelled(Stripes);
    impl crate::Samples for Unlabelled {
        fn len(&self) -> usize {
            crate::Samples::len(&self.0)
        }

        fn read(
            &self,
            indices: &[usize],
            augment: Option<&sartor_data::Augmentation>,
        ) -> Result<crate::Batch, sartor_data::DataError> {
            let batch = self.0.read(indices, augment)?;
            Ok(crate::Batch { labels: None, ..batch })
        }
    }
    // Sure enough of every class that an imitation is right where it is.
    let mut teacher = run(&Config { epochs: 20, ..config() }).0.graph;
    let y = teacher.outputs()[0];
    let soft = teacher.add_node("soft", Op::Softmax(Softmax { axis: 1 }), &[y], &["soft"]).unwrap();
    teacher.set_outputs(soft);
    let student = fixture::network();
    let train_on = Unlabelled(Stripes(52));
    let mut wrong = None;
    for (loss, mix) in [(Loss::CrossEntropy, 1.0), (Loss::Mse, 1.0), (Loss::CrossEntropy, 0.5)] {
        let mut config = Config { epochs: 20, ..config() };
        config.objective.loss = loss;
        config.objective.distillation = Some(Distillation { temperature: 2.0, mix });
        let job = Job { teacher: Some(&teacher), train: &train_on, ..job(&student, &config) };
        match train(&job, &mut Log::default()) {
            Ok(it) => {
                let losses = it.history.iter().filter_map(|it| Some(it.validation?.loss));
                let losses: Vec<_> = losses.collect();
                assert!(losses[20] < 0.3 * losses[0], "{loss:?} {losses:?}");
                let accuracy = it.history[20].validation.unwrap().accuracy.unwrap();
                assert!(accuracy > 90.0, "{loss:?} {accuracy}");
                assert!(it.history[20].train.unwrap().accuracy.is_none());
            }
            Err(it) => wrong = Some(it.to_string()),
        }
    }
    assert!(wrong.unwrap().contains("--mix 1"), "labels are needed for their share of the loss");
}

/// The answers of another network as numbers that the samples bring along.
#[test]
fn numbers_are_learnt_from_targets() {
    struct Valued(Stripes);
    impl crate::Samples for Valued {
        fn len(&self) -> usize {
            crate::Samples::len(&self.0)
        }

        fn read(
            &self,
            indices: &[usize],
            augment: Option<&sartor_data::Augmentation>,
        ) -> Result<crate::Batch, sartor_data::DataError> {
            let batch = self.0.read(indices, augment)?;
            let of = |i: &usize| [(i % 3) as f32, 0.5, -((i % 3) as f32)];
            let targets = Array::f32(&[indices.len(), 3], indices.iter().flat_map(of).collect());
            Ok(crate::Batch { labels: None, targets: Some(targets), ..batch })
        }
    }
    let (graph, train_on) = (fixture::network(), Valued(Stripes(52)));
    let mut config = Config { epochs: 20, ..config() };
    config.objective.loss = Loss::Mse;
    let job = Job { train: &train_on, validation: Some(&train_on), ..job(&graph, &config) };
    let trained = train(&job, &mut Log::default()).unwrap();
    let losses: Vec<_> = trained.history.iter().map(|it| it.validation.unwrap().loss).collect();
    assert!(losses[20] < 0.1 * losses[0], "{losses:?}");
}

#[test]
fn requests_that_contradict_themselves() {
    let graph = fixture::network();
    let says = |change: &dyn Fn(&mut Config, &mut Job<'_>)| {
        let mut config = config();
        let copy = config.clone();
        change(&mut config, &mut job(&graph, &copy));
        let mut job = job(&graph, &config);
        change(&mut copy.clone(), &mut job);
        train(&job, &mut Log::default()).unwrap_err().to_string()
    };
    let error = says(&|config, job| {
        config.keep = Keep::Best;
        job.validation = None;
    });
    assert!(error.contains("keep is best"), "{error}");
    let error = says(&|config, _| {
        config.objective.distillation = Some(Distillation { temperature: 1.0, mix: 0.5 });
    });
    assert!(error.contains("teacher is missing"), "{error}");
    let error = says(&|config, _| {
        config.batch = 64;
        config.last_batch = LastBatch::Drop;
    });
    assert!(error.contains("52 samples") && error.contains("64"), "{error}");
    let error = says(&|config, _| {
        config.schedule.peak = 1e30;
        config.schedule.shape = Shape::Constant;
    });
    assert!(error.contains("diverges"), "{error}");
    let error = says(&|_, job| job.resume = Some(b"not a checkpoint"));
    assert!(error.contains("the checkpoint is damaged"), "{error}");
}

#[test]
fn checkpoints_of_other_trainings_are_refused() {
    let (graph, first) = (fixture::network(), config());
    let mut log = Log { stop_after: Some(2), ..Log::default() };
    train(&job(&graph, &first), &mut log).unwrap();
    let says = |graph: &Graph, config: &Config, samples: usize| {
        let job =
            Job { resume: Some(&log.checkpoint), train: &Stripes(samples), ..job(graph, config) };
        train(&job, &mut Log::default()).unwrap_err().to_string()
    };
    let error = says(&graph, &Config { batch: 4, ..first.clone() }, 52);
    assert!(error.contains("`batch` was 8 and is 4 now"), "{error}");
    let error = says(&graph, &first, 51);
    assert!(error.contains("52 samples"), "{error}");
    let mut other = fixture::network();
    let u = other.find_value("u").unwrap();
    other.rename_value(u, "last").unwrap();
    let error = says(&other, &first, 52);
    assert!(error.contains("no tensor `parameter/last`"), "{error}");
}

#[test]
fn a_network_that_is_bound_to_a_batch() {
    let mut graph = fixture::network();
    let x = graph.inputs()[0];
    graph.set_type(x, Some(sartor_ir::TensorType::fixed(sartor_ir::DType::F32, &[8, 1, 6, 6])));
    let config = Config { batch_norm: BatchNorm::Frozen, ..config() };
    let trained = train(&job(&graph, &config), &mut Log::default()).unwrap();
    // 52 samples are 6 whole batches; all 30 are validated.
    assert_eq!(trained.iterations, 18);
    assert_eq!(trained.history[3].validation.unwrap().samples, 30);
    let error = train(&job(&graph, &Config { batch: 4, ..config }), &mut Log::default());
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("batch is 4, expected 8: the network is bound"), "{error}");
}

#[test]
fn a_frozen_tensor_stays() {
    let graph = fixture::network();
    let config = Config { freeze: vec!["w".to_owned()], epochs: 1, ..config() };
    let trained = train(&job(&graph, &config), &mut Log::default()).unwrap().graph;
    let same = |name: &str| {
        let id = graph.find_value(name).unwrap();
        graph.constant(id).map(Tensor::data) == trained.constant(id).map(Tensor::data)
    };
    assert!(same("w") && !same("u"));
}
