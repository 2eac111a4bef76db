//! Trainings that cannot be.

use crate::{
    Case, INPUT, OUTPUT, UNSUPPORTED, USAGE, bench, check, digits,
    onnx::{Network, node},
};

/// Options that contradict each other, or the files.
const NO_SENSE: &[Case] = &[
    (
        "finetune good.onnx --data digits.toml -o out.onnx --keep best",
        USAGE,
        &["keep is best", "validation"],
    ),
    (
        "finetune good.onnx --data digits.toml -o out.onnx --rate 0.1 --final-rate 0.2",
        USAGE,
        &["final rate is 0.2"],
    ),
    (
        "finetune good.onnx --data digits.toml -o out.onnx --optimizer adamw --momentum 0.8",
        USAGE,
        &["--momentum", "--optimizer sgd"],
    ),
    (
        "finetune good.onnx --data digits.toml -o out.onnx --milestones 3",
        USAGE,
        &["--milestones", "--schedule step"],
    ),
    (
        "finetune good.onnx --data digits.toml -o out.onnx --warmup 11",
        USAGE,
        &["warm-up is 11", "epochs"],
    ),
    (
        "finetune good.onnx --data digits.toml -o out.onnx --schedule one-cycle --warmup 1",
        USAGE,
        &["warm-up is 1", "one-cycle"],
    ),
    (
        "finetune good.onnx --data digits.toml -o out.onnx --loss mse --label-smoothing 0.1",
        USAGE,
        &["label smoothing", "mse"],
    ),
    (
        "finetune good.onnx --data digits.toml -o out.onnx --freeze layer*",
        USAGE,
        &["freeze is `layer*`", "`w1`"],
    ),
    (
        "finetune good.onnx --data digits.toml -o out.onnx --freeze *",
        UNSUPPORTED,
        &["nothing in the network learns"],
    ),
    (
        "finetune good.onnx --data digits.toml -o out.onnx --batch 2000 --last-batch drop",
        INPUT,
        &["1197 samples", "2000"],
    ),
    (
        "finetune good.onnx --data digits.toml -o out.onnx --rate 1e30 --schedule constant",
        INPUT,
        &["diverges", "lower the rate"],
    ),
    (
        "finetune good.onnx --data digits.toml -o out.onnx --split exam",
        INPUT,
        &["digits.toml", "exam"],
    ),
    (
        "finetune good.onnx --data digits.toml -o out.onnx --validation 0.0001",
        INPUT,
        &["0.0001", "1197", "empty"],
    ),
    ("finetune good.onnx --data digits.toml -o there.onnx", OUTPUT, &["--force"]),
    ("train good.onnx --data digits.toml -o no/where.onnx", OUTPUT, &["does not exist"]),
    (
        "finetune good.onnx --data digits.toml -o out.onnx --log there.onnx",
        OUTPUT,
        &["there.onnx", "--force"],
    ),
    (
        "finetune good.onnx --data digits.toml -o out.onnx --checkpoint run",
        USAGE,
        &["holds a checkpoint", "--resume"],
    ),
    (
        "finetune good.onnx --data digits.toml -o out.onnx --checkpoint run --resume",
        INPUT,
        &["checkpoint", "damaged"],
    ),
    (
        "finetune good.onnx --data digits.toml -o out.onnx --checkpoint new --resume",
        INPUT,
        &["checkpoint.safetensors", "No such file"],
    ),
    (
        "finetune good.onnx --data digits.toml -o out.onnx --checkpoint good.onnx",
        OUTPUT,
        &["expected a folder"],
    ),
];

#[test]
fn trainings_that_make_no_sense() {
    let bench = bench();
    bench.write("there.onnx", "");
    bench.write("run/checkpoint.safetensors", "no checkpoint");
    check(&bench, NO_SENSE);
}

#[test]
fn networks_and_data_that_do_not_fit_a_training() {
    let bench = bench();
    let small = Network::small();
    bench.write("odd.onnx", small.with(|it| it.nodes[1] = node("Frobnicate", "odd", &["a"], "b")));
    bench.write("planes.onnx", small.with(|it| it.output = "d"));
    let sigmoid = small.with(|it| {
        it.nodes.push(node("Sigmoid", "many", &["scores"], "each"));
        it.output = "each";
    });
    bench.write("sigmoid.onnx", sigmoid);
    bench.write("flat.onnx", small.with(|it| it.output = "f"));
    let unlabelled = digits::SPEC.replace("labels = \"train-labels.idx\"\n", "");
    bench.write("unlabelled.toml", unlabelled);
    let targets = digits::SPEC.replace("labels = \"train-labels.idx\"", "targets = \"x\"");
    bench.write("targets.toml", targets);
    let no_test = digits::SPEC.split("[splits.test]").next().unwrap();
    bench.write("no-test.toml", no_test);
    check(
        &bench,
        &[
            (
                "finetune odd.onnx --data digits.toml -o out.onnx",
                UNSUPPORTED,
                &["`odd`", "Frobnicate"],
            ),
            (
                "finetune planes.onnx --data no-test.toml -o out.onnx",
                UNSUPPORTED,
                &["[128, 16, 8, 8]", "[N, classes]", "--loss mse", "--teacher"],
            ),
            (
                "finetune sigmoid.onnx --data no-test.toml -o out.onnx",
                UNSUPPORTED,
                &["`each`", "sigmoid", "--loss mse"],
            ),
            (
                "finetune good.onnx --data targets.toml -o out.onnx",
                INPUT,
                &["targets.toml", "`targets` has no meaning for format `idx`"],
            ),
            (
                "finetune good.onnx --data unlabelled.toml -o out.onnx",
                INPUT,
                &["no labels", "--teacher", "--mix 1"],
            ),
            (
                "finetune good.onnx --teacher flat.onnx --data digits.toml -o out.onnx",
                UNSUPPORTED,
                &["teacher", "[128, 16]", "[128, 10]"],
            ),
            (
                "finetune good.onnx --teacher half.onnx --data digits.toml -o out.onnx",
                INPUT,
                &["half.onnx"],
            ),
        ],
    );
}
