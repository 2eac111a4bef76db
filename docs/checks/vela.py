"""Sartor's Ethos-U cost model against Arm's compiler Vela.

A check for developers; nothing of the product needs it. In a virtual environment with `ethos-u-vela==5.2.0` and `tflite==2.18.0`:

    python docs/checks/vela.py sweep [--chips ID ...] [--ops c1x1:160:32 ...]
        builds single int8 operators over 16 x 16 positions and prints one CSV row for each operator and chip: the array's cycles
        and all cycles. Everything lies in SRAM (mode Sram_Only).
    python docs/checks/vela.py run MODEL.tflite ... [--chips ID ...]
        prints one CSV row for each layer: network, chip, operator, MACs, array cycles, all cycles, name.
    python docs/checks/vela.py compare --sartor PATH --models FOLDER [--chips ID ...]
        the MLPerf Tiny networks (int8 `.tflite` for Vela, the same network in ONNX for Sartor, as int8): totals, their errors, and
        the rank correlation over all layers. Layers of one kind are matched in order by their MACs; what finds no partner is listed.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CHIPS = [f"arm-ethos-u55-{n}" for n in (32, 64, 128, 256)]
CHIPS += [f"arm-ethos-u65-{n}" for n in (256, 512)]
CHIPS += [f"arm-ethos-u85-{n}" for n in (128, 256, 512, 1024, 2048)]
NETWORKS = ["resnet8", "mobilenetv1_vww", "dscnn_kws", "autoencoder_ad"]
SYSTEMS = {"u55": "Ethos_U55_High_End_Embedded", "u65": "Ethos_U65_High_End", "u85": "Ethos_U85_SYS_Flash_High"}
KINDS = {
    "Conv2D": "conv", "DepthwiseConv2D": "depthwise", "FullyConnected": "matrix", "Add": "sum", "AvgPool": "pool", "MaxPool": "pool",
}


def vela(model, chip, folder, *more):
    """Rows of Vela's per-layer table; by default on the board that Vela takes when none is named."""
    command = [str(Path(sys.executable).with_name("vela")), str(model), "--accelerator-config", chip.removeprefix("arm-")]
    command += ["--output-dir", str(folder), "--verbose-performance", *more]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    with open(Path(folder) / f"{Path(model).stem}_per-layer.csv") as file:
        return list(csv.DictReader(file))


def cells(row):
    """Source operator, operator, MACs, array cycles, all cycles, name."""
    operator = row.get("NNG Operator", row.get("Operator"))
    source = row.get("TFLite_operator") or row.get("Original Operator") or operator
    return source, operator, int(float(row["MAC Count"])), float(row["NPU"]), float(row["Op Cycles"]), row["Name"]


def operator_model(kind, kernel, inputs, outputs, zeros):
    """An int8 convolution over 16 x 16 positions, all of them kept, with random weights and a scale for each channel."""
    import flatbuffers
    import numpy as np
    import tflite

    random = np.random.default_rng(0)
    depthwise = kind == "dw"
    shape = [1, kernel, kernel, inputs] if depthwise else [outputs, kernel, kernel, inputs]
    weights = random.integers(-127, 128, shape).astype(np.int8)
    weights[random.random(shape) < zeros / 100] = 0
    builder = flatbuffers.Builder(weights.size + 4096)

    def vector(start, items, add):
        start(builder, len(items))
        for item in reversed(items):
            add(item)
        return builder.EndVector()

    def quantization(scales, axis):
        scale = builder.CreateNumpyVector(np.asarray(scales, np.float32))
        zero = builder.CreateNumpyVector(np.zeros(len(scales), np.int64))
        tflite.QuantizationParametersStart(builder)
        tflite.QuantizationParametersAddScale(builder, scale)
        tflite.QuantizationParametersAddZeroPoint(builder, zero)
        tflite.QuantizationParametersAddQuantizedDimension(builder, axis)
        return tflite.QuantizationParametersEnd(builder)

    def tensor(name, extents, element, buffer, scales, axis=0):
        name, extents = builder.CreateString(name), builder.CreateNumpyVector(np.asarray(extents, np.int32))
        scales = quantization(scales, axis)
        tflite.TensorStart(builder)
        tflite.TensorAddName(builder, name)
        tflite.TensorAddShape(builder, extents)
        tflite.TensorAddType(builder, element)
        tflite.TensorAddBuffer(builder, buffer)
        tflite.TensorAddQuantization(builder, scales)
        return tflite.TensorEnd(builder)

    each = random.uniform(0.001, 0.01, outputs)
    tensors = [
        tensor("input", [1, 16, 16, inputs], tflite.TensorType.INT8, 0, [0.05]),
        tensor("weights", shape, tflite.TensorType.INT8, 1, each, 3 if depthwise else 0),
        tensor("bias", [outputs], tflite.TensorType.INT32, 2, each * 0.05),
        tensor("output", [1, 16, 16, outputs], tflite.TensorType.INT8, 0, [0.05]),
    ]
    tensors = vector(tflite.SubGraphStartTensorsVector, tensors, builder.PrependUOffsetTRelative)
    options = tflite.DepthwiseConv2DOptions if depthwise else tflite.Conv2DOptions
    name = options.__name__
    getattr(tflite, f"{name}Start")(builder)
    getattr(tflite, f"{name}AddPadding")(builder, tflite.Padding.SAME)
    getattr(tflite, f"{name}AddStrideW")(builder, 1)
    getattr(tflite, f"{name}AddStrideH")(builder, 1)
    if depthwise:
        tflite.DepthwiseConv2DOptionsAddDepthMultiplier(builder, 1)
    chosen = getattr(tflite, f"{name}End")(builder)
    reads, writes = (builder.CreateNumpyVector(np.asarray(it, np.int32)) for it in ([0, 1, 2], [3]))
    tflite.OperatorStart(builder)
    tflite.OperatorAddInputs(builder, reads)
    tflite.OperatorAddOutputs(builder, writes)
    tflite.OperatorAddBuiltinOptionsType(builder, getattr(tflite.BuiltinOptions, name))
    tflite.OperatorAddBuiltinOptions(builder, chosen)
    operators = vector(tflite.SubGraphStartOperatorsVector, [tflite.OperatorEnd(builder)], builder.PrependUOffsetTRelative)
    enters, leaves = (builder.CreateNumpyVector(np.asarray(it, np.int32)) for it in ([0], [3]))
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, tensors)
    tflite.SubGraphAddInputs(builder, enters)
    tflite.SubGraphAddOutputs(builder, leaves)
    tflite.SubGraphAddOperators(builder, operators)
    graphs = vector(tflite.ModelStartSubgraphsVector, [tflite.SubGraphEnd(builder)], builder.PrependUOffsetTRelative)
    code = tflite.BuiltinOperator.DEPTHWISE_CONV_2D if depthwise else tflite.BuiltinOperator.CONV_2D
    tflite.OperatorCodeStart(builder)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, code)
    tflite.OperatorCodeAddBuiltinCode(builder, code)
    tflite.OperatorCodeAddVersion(builder, 3)
    codes = vector(tflite.ModelStartOperatorCodesVector, [tflite.OperatorCodeEnd(builder)], builder.PrependUOffsetTRelative)

    def buffer(data):
        data = builder.CreateNumpyVector(np.frombuffer(data, np.uint8)) if data else None
        tflite.BufferStart(builder)
        if data is not None:
            tflite.BufferAddData(builder, data)
        return tflite.BufferEnd(builder)

    buffers = [buffer(b""), buffer(weights.tobytes()), buffer(np.zeros(outputs, np.int32).tobytes())]
    buffers = vector(tflite.ModelStartBuffersVector, buffers, builder.PrependUOffsetTRelative)
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, 3)
    tflite.ModelAddOperatorCodes(builder, codes)
    tflite.ModelAddSubgraphs(builder, graphs)
    tflite.ModelAddBuffers(builder, buffers)
    builder.Finish(tflite.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


def sweep(chips, ops, own_board):
    rows = csv.writer(sys.stdout)
    rows.writerow(["op", "chip", "array", "all"])
    for op in ops:
        kind, inputs, outputs, *zeros = op.split(":")
        depthwise = kind.startswith("dw")
        kernel = int(kind.removeprefix("dw").removeprefix("c").split("x")[0])
        model = operator_model("dw" if depthwise else "conv", kernel, int(inputs), int(outputs), int(zeros[0]) if zeros else 0)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "op.tflite"
            path.write_bytes(model)
            for chip in chips:
                more = [] if own_board else ["--system-config", SYSTEMS[chip.split("-")[2]], "--memory-mode", "Sram_Only"]
                more = more and [*more, "--config", "Arm/vela.ini"]
                found = [cells(row) for row in vela(path, chip, folder, *more)]
                array, every = sum(it[3] for it in found), sum(it[4] for it in found)
                rows.writerow([op, chip, array, every])


def run(models, chips):
    rows = csv.writer(sys.stdout)
    rows.writerow(["network", "chip", "operator", "macs", "array", "all", "name"])
    for model in models:
        for chip in chips:
            with tempfile.TemporaryDirectory() as folder:
                for row in vela(model, chip, folder):
                    source, operator, macs, array, every, name = cells(row)
                    rows.writerow([Path(model).stem, chip, f"{source}/{operator}", macs, array, every, name])


def vela_layers(rows):
    """(kind, MACs, cycles) of each layer; a softmax is one layer."""
    layers, softmax = [], 0.0
    for row in rows:
        source, operator, macs, _, every, name = cells(row)
        if source == "Softmax":
            softmax += every
        elif every > 0:
            layers.append((KINDS.get(operator, operator), macs, every, name))
    return layers + ([("softmax", 0, softmax, "softmax")] if softmax else [])


def sartor_layers(answer, clock):
    layers = []
    for node in answer["nodes"]:
        cycles = node["latency_s"] * clock
        if cycles <= 0:
            continue
        kind = {"MatMul": "matrix", "Gemm": "matrix", "Add": "sum", "AveragePool": "pool", "Softmax": "softmax"}.get(node["op"], node["op"])
        if node["op"] == "Conv":
            kind = "depthwise" if node.get("depthwise") else "conv"
        layers.append((kind, node["macs"], cycles, node["name"]))
    return layers


def matched(ours, theirs):
    """Pairs of cycles, and what is left over on either side. A convolution may be a depthwise one on the other side's list."""
    pairs, left = [], list(theirs)
    alone = []
    same = lambda a, b: a == b or {a, b} == {"conv", "depthwise"}
    for kind, macs, cycles, name in ours:
        fits = lambda it: same(it[0], kind) and (kind not in ("conv", "matrix", "depthwise") or it[1] in (macs, macs // 2))
        at = next((i for i, it in enumerate(left) if fits(it)), None)
        if at is None:
            alone.append(("sartor", kind, name, cycles))
            continue
        pairs.append((cycles, left.pop(at)[2]))
    return pairs, alone + [("vela", kind, name, cycles) for kind, _, cycles, name in left]


def ranks(values):
    order = sorted(range(len(values)), key=lambda i: values[i])
    rank, at = [0.0] * len(values), 0
    while at < len(order):
        end = at
        while end + 1 < len(order) and values[order[end + 1]] == values[order[at]]:
            end += 1
        for i in order[at : end + 1]:
            rank[i] = (at + end) / 2
        at = end + 1
    return rank


def spearman(pairs):
    a, b = ranks([it[0] for it in pairs]), ranks([it[1] for it in pairs])
    return statistics.correlation(a, b)


def compare(sartor, models, chips):
    errors, layers, alone = [], [], []
    print(f"{'network':18}{'chip':22}{'sartor':>10}{'vela':>10}{'error':>9}")
    for network in NETWORKS:
        for chip in chips:
            with tempfile.TemporaryDirectory() as folder:
                theirs = vela_layers(vela(models / f"{network}_int8.tflite", chip, folder))
            command = [sartor, "analyze", str(models / f"{network}.onnx"), "--chip", chip, "--as", "int8", "--format", "json"]
            answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            answer = answer[0] if isinstance(answer, list) else answer
            answer = answer.get("estimate", answer)
            clock = answer["cycles"] / answer["latency_s"]
            pairs, lonely = matched(sartor_layers(answer, clock), theirs)
            layers += pairs
            alone += [(network, chip, *it) for it in lonely]
            total = sum(it[2] for it in theirs)
            errors.append(abs(answer["cycles"] / total - 1))
            print(f"{network:18}{chip:22}{answer['cycles']:10.0f}{total:10.0f}{answer['cycles'] / total - 1:9.2%}")
    print(f"total cycles: median absolute error {statistics.median(errors):.2%}, largest {max(errors):.2%}, {len(errors)} points")
    relative = sorted(abs(ours / theirs - 1) for ours, theirs in layers)
    print(f"layers: Spearman {spearman(layers):.4f} over {len(layers)}, median absolute error {statistics.median(relative):.2%}")
    print(f"without a partner: {len(alone)}")
    for it in alone:
        print("  ", *it)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["sweep", "run", "compare"])
    parser.add_argument("models_given", nargs="*", metavar="MODEL")
    parser.add_argument("--chips", nargs="+", default=CHIPS)
    parser.add_argument("--ops", nargs="+", default=["c1x1:64:32", "c1x1:65:32", "c3x3:16:32", "dw3x3:32:32"])
    parser.add_argument("--own-board", action="store_true", help="sweep: on the board that Vela takes when none is named")
    parser.add_argument("--sartor", default="sartor")
    parser.add_argument("--models", type=Path)
    arguments = parser.parse_args()
    if arguments.part == "sweep":
        sweep(arguments.chips, arguments.ops, arguments.own_board)
    elif arguments.part == "run":
        run(arguments.models_given, arguments.chips)
    else:
        compare(arguments.sartor, arguments.models, arguments.chips)


if __name__ == "__main__":
    main()
