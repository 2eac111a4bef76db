//! Plans for a small network under a judge whose accuracy falls with the parameters that are gone.

use sartor_chip::find;
use sartor_compress::{InMemory, Recipe, Step, Workpiece};
use sartor_engine::Array;
use sartor_ir::{
    Conv, DType, Dim, Flatten, Gemm, GlobalPool, Graph, Op, Spatial, Tensor, TensorType, Unary,
    ValueId,
};
use sartor_plan::{Judge, Limits, Plan, PlanError, Request, Score, plan};

/// Numbers between -1 and 1 that look random and are the same every time.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn convolution(graph: &mut Graph, x: ValueId, name: &str, from: usize, to: usize) -> ValueId {
    let seed = name.bytes().map(u32::from).sum();
    let weight = Tensor::from_f32(&[to, from, 3, 3], &noise(to * from * 9, seed));
    let weight = graph.add_constant(&format!("{name}.weight"), weight).unwrap();
    let bias = graph
        .add_constant(&format!("{name}.bias"), Tensor::from_f32(&[to], &noise(to, 7)))
        .unwrap();
    let spatial = Spatial { pads: vec![1; 4], ..Spatial::default() };
    let conv = Op::Conv(Conv { spatial, group: 1 });
    let out = format!("{name}.out");
    let y = graph.add_node(name, conv, &[x, weight, bias], &[&out]).unwrap()[0];
    let relu = format!("{name}.relu");
    graph.add_node(&relu, Op::Unary(Unary::Relu), &[y], &[&format!("{relu}.out")]).unwrap()[0]
}

/// Three convolutions of 64 channels, pooling, ten classes.
fn network() -> Graph {
    let mut graph = Graph::new("small");
    let dims = vec![Dim::symbol("N"), Dim::Known(3), Dim::Known(16), Dim::Known(16)];
    let mut x = graph.add_input("input", TensorType::new(DType::F32, dims)).unwrap();
    for (name, from) in [("first", 3), ("second", 64), ("third", 64)] {
        x = convolution(&mut graph, x, name, from, 64);
    }
    let pool = Op::GlobalPool(GlobalPool::Average);
    let pooled = graph.add_node("pool", pool, &[x], &["pooled"]).unwrap()[0];
    let flat =
        graph.add_node("flat", Op::Flatten(Flatten { axis: 1 }), &[pooled], &["flat"]).unwrap()[0];
    let weight =
        graph.add_constant("fc.weight", Tensor::from_f32(&[10, 64], &noise(640, 3))).unwrap();
    let gemm = Op::Gemm(Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true });
    let logits = graph.add_node("fc", gemm, &[flat, weight], &["logits"]).unwrap()[0];
    graph.set_outputs(vec![logits]);
    sartor_ir::infer(&mut graph).unwrap();
    graph
}

/// Loses `points` of accuracy for each percent of the weights that is gone.
struct ByWeights {
    whole: f64,
    points: f64,
}

fn weights(graph: &Graph) -> f64 {
    let heavy = graph
        .values()
        .filter(|(_, it)| it.constant.as_ref().is_some_and(|it| it.shape().len() >= 2));
    heavy.map(|(_, it)| it.constant.as_ref().unwrap().len() as f64).sum()
}

impl ByWeights {
    fn of(graph: &Graph, points: f64) -> Self {
        ByWeights { whole: weights(graph), points }
    }

    fn lost(&self, graph: &Graph) -> f64 {
        100.0 * (1.0 - weights(graph) / self.whole)
    }
}

impl Judge for ByWeights {
    fn score(&mut self, graph: &Graph) -> Result<Score, PlanError> {
        let lost = self.lost(graph);
        let top1 = Some(90.0 - self.points * lost);
        Ok(Score { top1, agreement: 100.0 - lost, divergence: lost / 100.0, samples: 1000 })
    }

    fn divergence(&mut self, graph: &Graph) -> Result<f64, PlanError> {
        Ok(self.lost(graph) / 100.0)
    }
}

fn planned(chip: &str, max_drop: f64, points: f64) -> Plan {
    let graph = network();
    let samples = InMemory::new(vec![Array::f32(&[8, 3, 16, 16], noise(8 * 3 * 256, 5))]).unwrap();
    let request = Request {
        graph: &graph,
        chip: &find(chip).unwrap(),
        limits: Limits { max_drop, reserve: 1.0 },
        seed: 0,
        calibration: &samples,
    };
    plan(&request, &mut ByWeights::of(&graph, points), &mut |_| {}).unwrap()
}

fn techniques(recipe: &Recipe) -> Vec<&'static str> {
    recipe.steps.iter().map(|it| it.technique().id).collect()
}

#[test]
fn a_tight_limit_leaves_the_channels_alone() {
    let plan = planned("arm-cortex-m7", 0.5, 1.0);
    let best = &plan.candidates[0];
    assert_eq!(techniques(&best.recipe), ["simplify", "quantize-static"]);
    assert!(best.estimate.latency < plan.before.latency);
    let refused =
        plan.refused.iter().any(|it| it.what == "prune channels" && it.why.contains("points left"));
    assert!(refused, "{:?}", plan.refused);
}

#[test]
fn a_loose_limit_is_used_on_the_grain_and_held() {
    let plan = planned("arm-cortex-m7", 20.0, 1.0);
    let best = &plan.candidates[0];
    assert_eq!(
        techniques(&best.recipe),
        ["simplify", "prune-channels", "restore-statistics", "quantize-static"]
    );
    for candidate in &plan.candidates {
        assert!(candidate.score.drop_from(&plan.reference) <= 20.0);
        assert!(candidate.estimate.latency <= plan.before.latency);
    }
    let whole =
        plan.candidates.iter().find(|it| techniques(&it.recipe) == ["simplify", "quantize-static"]);
    assert!(best.estimate.latency < whole.unwrap().estimate.latency);
    let Step::PruneChannels(pruning) = &best.recipe.steps[1] else {
        panic!("the second step prunes")
    };
    let grain = find("arm-cortex-m7").unwrap().grain() as usize;
    let sartor_compress::prune::Keep::Widths(widths) = &pruning.keep else {
        panic!("widths are explicit")
    };
    assert!(!widths.is_empty() && widths.values().all(|it| it % grain == 0), "{widths:?}");
    assert!(best.steps.iter().all(|it| !it.why.is_empty()));
}

#[test]
fn a_chip_without_floats_gets_integers_only() {
    let plan = planned("arm-ethos-u55-128", 1.0, 1.0);
    assert!(!plan.candidates.is_empty());
    for candidate in &plan.candidates {
        assert!(techniques(&candidate.recipe).contains(&"quantize-static"));
        assert!(
            candidate.nodes.iter().all(|it| it.left_float_because.is_none()),
            "{:?}",
            candidate.nodes
        );
    }
}

#[test]
fn the_same_request_gives_the_same_plan_and_its_recipe_the_same_network() {
    let (one, two) = (planned("arm-cortex-m7", 10.0, 1.0), planned("arm-cortex-m7", 10.0, 1.0));
    assert_eq!(one.candidates[0].recipe, two.candidates[0].recipe);
    let samples = InMemory::new(vec![Array::f32(&[8, 3, 16, 16], noise(8 * 3 * 256, 5))]).unwrap();
    let mut piece = Workpiece::new(network());
    for step in &one.candidates[0].recipe.steps {
        piece = piece.apply(step, Some(&samples), &mut |_, _| {}).unwrap().0;
    }
    assert_eq!(piece.graph, one.candidates[0].graph);
}
