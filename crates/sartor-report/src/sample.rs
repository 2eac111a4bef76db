//! A record for the tests: small, and with something in every field.

use crate::analysis::{Analysis, AnalysisNode, Opportunity, Placement, Sensitivity, Share};
use crate::record::{
    Ceiling, ChipInfo, Fidelity, Figures, Limits, ModelInfo, NodeEstimate, Record, Refused, SCHEMA,
    StepRecord, TensorInfo, Verdict,
};

pub(crate) fn sample() -> Record {
    Record {
        schema: SCHEMA,
        version: "0.1.0".to_owned(),
        seed: 7,
        model: model(),
        chip: chip(),
        data: Some("data/cifar10.toml, split test, 10000 images".to_owned()),
        verdict: Verdict {
            met: true,
            reason: "top-1 fell by 0.31 points of 1.00 allowed".to_owned(),
        },
        limits: Limits { max_drop_points: Some(1.0), time_s: Some(600.0), ..Limits::default() },
        before: before(),
        after: after(),
        steps: steps(),
        refused: vec![Refused {
            what: "quantize weights to int4".to_owned(),
            where_: "fc".to_owned(),
            why: "the chip has no int4 arithmetic, so nothing would be faster".to_owned(),
        }],
        warnings: vec!["2 nodes are estimated by a general rule: Softmax, Gather".to_owned()],
        recipe: "seed = 7\n\n[[step]]\nkind = \"quantize\"\nweights = \"int8\"\n".to_owned(),
        deploy: vec!["sartor verify model.onnx --chip cortex-m7".to_owned()],
        nodes_before: nodes_before(),
        nodes_after: nodes_after(),
    }
}

fn model() -> ModelInfo {
    ModelInfo {
        file: "resnet20.onnx".to_owned(),
        name: "resnet20".to_owned(),
        parameters: 272_474,
        macs: 40_812_544,
        opset: 17,
        inputs: vec![TensorInfo {
            name: "image".to_owned(),
            dtype: "float32".to_owned(),
            shape: ["n", "3", "32", "32"].map(str::to_owned).to_vec(),
        }],
        outputs: vec![TensorInfo {
            name: "logits".to_owned(),
            dtype: "float32".to_owned(),
            shape: ["n", "10"].map(str::to_owned).to_vec(),
        }],
    }
}

fn chip() -> ChipInfo {
    ChipInfo {
        id: "cortex-m7".to_owned(),
        name: "Arm Cortex-M7 at 480 MHz".to_owned(),
        low_confidence: vec!["flash bandwidth is assumed from the bus width".to_owned()],
        ceilings: vec![
            Ceiling::Compute { name: "float32".to_owned(), macs_per_s: 240e6 },
            Ceiling::Compute { name: "int8 SIMD".to_owned(), macs_per_s: 960e6 },
            Ceiling::Memory { name: "flash".to_owned(), bytes_per_s: 100e6 },
        ],
    }
}

fn before() -> Figures {
    Figures {
        top1: Some(91.64),
        top1_low: Some(91.08),
        top1_high: Some(92.16),
        top5: Some(99.71),
        samples: Some(10_000),
        agreement: None,
        latency_s: 0.213,
        energy_j: Some(0.031),
        bytes: 1_102_000,
        macs: 40_812_544,
        mac_slots: 44_040_192,
        parameters: 272_474,
        peak_memory_bytes: 196_608,
        bound: "compute".to_owned(),
    }
}

fn after() -> Figures {
    Figures {
        top1: Some(91.33),
        top1_low: Some(90.76),
        top1_high: Some(91.87),
        top5: Some(99.68),
        samples: Some(10_000),
        agreement: Some(96.4),
        latency_s: 0.0485,
        energy_j: Some(0.0072),
        bytes: 287_400,
        macs: 31_205_120,
        mac_slots: 31_719_424,
        parameters: 214_010,
        peak_memory_bytes: 49_152,
        bound: "flash".to_owned(),
    }
}

fn steps() -> Vec<StepRecord> {
    vec![
        StepRecord {
            what: "prune channels to a grain of 4".to_owned(),
            where_: "stage3, 3 groups".to_owned(),
            why: "compute binds, and the array is filled in steps of 4 channels".to_owned(),
            fidelity: Fidelity::Lossy,
            predicted_gain: Some(1.29),
            measured_points: Some(-0.22),
        },
        StepRecord {
            what: "quantize to int8".to_owned(),
            where_: "all 22 convolutions and fc".to_owned(),
            why: "int8 SIMD does 4 times the multiplications of float32".to_owned(),
            fidelity: Fidelity::Lossy,
            predicted_gain: Some(3.41),
            measured_points: Some(-0.09),
        },
        StepRecord {
            what: "fold batch normalization".to_owned(),
            where_: "19 nodes".to_owned(),
            why: "it is a scale that the convolution can carry".to_owned(),
            fidelity: Fidelity::Rounding,
            predicted_gain: None,
            measured_points: None,
        },
    ]
}

fn node(name: &str, op: &str, macs: u64, bytes: u64, latency_s: f64, bound: &str) -> NodeEstimate {
    NodeEstimate {
        name: name.to_owned(),
        op: op.to_owned(),
        macs,
        mac_slots: macs + macs / 16,
        bytes,
        latency_s,
        bound: bound.to_owned(),
        weights: None,
        activations: Some("float32".to_owned()),
        what_was_done: None,
    }
}

fn nodes_before() -> Vec<NodeEstimate> {
    let weighted = |node: NodeEstimate| NodeEstimate { weights: Some("float32".into()), ..node };
    vec![
        weighted(node("conv1", "Conv", 442_368, 79_600, 2.1e-3, "compute")),
        node("bn1", "BatchNormalization", 0, 131_200, 1.4e-3, "RAM"),
        weighted(node("stage1/conv1", "Conv", 2_359_296, 140_300, 11.2e-3, "compute")),
        weighted(node("stage2/conv1", "Conv", 2_359_296, 83_900, 10.9e-3, "compute")),
        weighted(node("stage3/conv1", "Conv", 2_359_296, 180_200, 10.8e-3, "compute")),
        node("pool", "GlobalAveragePool", 0, 16_600, 0.2e-3, "RAM"),
        weighted(node("fc", "Gemm", 640, 2_900, 0.04e-3, "flash")),
    ]
}

fn nodes_after() -> Vec<NodeEstimate> {
    let int8 = |node: NodeEstimate, done: &str| NodeEstimate {
        weights: Some("int8".to_owned()),
        activations: Some("uint8".to_owned()),
        what_was_done: Some(done.to_owned()),
        ..node
    };
    vec![
        int8(node("conv1", "Conv", 442_368, 19_900, 0.61e-3, "compute"), "int8, bn1 folded in"),
        int8(node("stage1/conv1", "Conv", 2_359_296, 35_100, 2.6e-3, "compute"), "int8"),
        int8(node("stage2/conv1", "Conv", 2_359_296, 21_000, 2.5e-3, "compute"), "int8"),
        int8(node("stage3/conv1", "Conv", 1_769_472, 45_100, 1.9e-3, "flash"), "48 of 64 channels"),
        node("pool", "GlobalAveragePool", 0, 4_200, 0.07e-3, "RAM"),
        int8(node("fc", "Gemm", 640, 730, 0.012e-3, "flash"), "int8"),
        node("logits/dequantize", "DequantizeLinear", 0, 50, 0.001e-3, "RAM"),
    ]
}

/// An analysis of the sample's network for its chip.
pub(crate) fn sample_analysis() -> Analysis {
    let record = sample();
    let nodes = record.nodes_before.iter().map(|it| AnalysisNode {
        name: it.name.clone(),
        op: it.op.clone(),
        runs_on: "chip".to_owned(),
        macs: it.macs,
        mac_slots: it.mac_slots,
        bytes: it.bytes,
        weight_bytes: 1_000,
        latency_s: it.latency_s,
        bound: it.bound.clone(),
        margin: Some(1.5),
        utilisation: 0.4,
        ..AnalysisNode::default()
    });
    Analysis {
        chip: record.chip.id.clone(),
        chip_name: record.chip.name.clone(),
        model: record.model.file.clone(),
        batch: 1,
        precision: "i8, because the chip has no f32 arithmetic (5 operators)".to_owned(),
        latency_s: record.before.latency_s,
        cycles: 500e6 * record.before.latency_s,
        energy_at_most_j: Some(2e-3),
        macs: record.before.macs,
        mac_slots: record.before.mac_slots,
        utilisation: 0.31,
        weight_bytes: record.before.bytes,
        peak_memory_bytes: record.before.peak_memory_bytes,
        placements: vec![Placement {
            what: "weights".to_owned(),
            memory: "flash".to_owned(),
            needed_bytes: record.before.bytes,
            capacity_bytes: Some(100_000),
            fits: false,
        }],
        bound: "flash bandwidth".to_owned(),
        shares: [("flash bandwidth", 0.7), ("compute", 0.3)]
            .map(|(resource, share)| Share {
                resource: resource.to_owned(),
                latency_s: share * record.before.latency_s,
            })
            .to_vec(),
        ceilings: record.chip.ceilings.clone(),
        opportunities: vec![Opportunity {
            where_: "stage3/conv1".to_owned(),
            what: "32 output channels instead of 33".to_owned(),
            why: "the array computes 48".to_owned(),
            gain_s: 0.1 * record.before.latency_s,
        }],
        sensitivity: vec![Sensitivity {
            field: "system.memory.flash.read_bytes_per_s".to_owned(),
            change_percent: 10.0,
            latency_change_percent: -6.4,
            energy_change_percent: None,
        }],
        fallbacks: vec!["`pool` (GlobalLpPool): host and back".to_owned()],
        low_confidence: record.chip.low_confidence.clone(),
        nodes: nodes.collect(),
        ..Analysis::default()
    }
}
