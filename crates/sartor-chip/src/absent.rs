//! What it means that an optional key is absent.

/// Keys by their path without indices, and what stands for them; nothing where they do not apply.
const MEANINGS: &[(&str, &str)] = &[
    ("sources", ""),
    ("energy", "unknown"),
    ("chip.year", "unknown"),
    ("chip.notes", ""),
    ("core.sparsity", "no pattern is faster"),
    ("core.weight_store", "weights are stored as they are"),
    ("core.overlaps", "false: transfers and computation take turns"),
    ("core.drain_cycles", "unknown, counted as none"),
    ("core.engine.host", ""),
    ("core.engine.core_hz", "the system's clock"),
    ("core.engine.tile", ""),
    ("core.engine.array", ""),
    ("core.engine.block", ""),
    ("core.engine.crossbar", ""),
    ("core.engine.op", "no operator has a rate of its own"),
    ("core.engine.op.cycles_per_element", "unknown, never binding"),
    ("core.engine.op.launch_us", "the runtime's"),
    ("core.engine.ops", "all that the chip runs"),
    ("core.engine.mode.efficiency", "the engine's"),
    ("core.engine.mode.alternative", "none"),
    ("core.engine.mode.cycles_per_output", "none"),
    ("core.engine.mode.depthwise", "as `unroll`, with a reduction of one channel"),
    ("core.engine.mode.depthwise.cycles_per_output", "the mode's"),
    ("core.engine.mode.kernel", "all products run at the mode's rate"),
    ("core.engine.mode.kernel.macs_per_cycle", "the mode's"),
    ("core.engine.mode.kernel.cycles_per_output", "the mode's"),
    ("core.engine.crossbar.arrays", "as many as the network needs"),
    ("core.engine.crossbar.pair_in_cell", "false"),
    ("core.engine.crossbar.rows_parallel", "all rows"),
    ("core.engine.crossbar.adc_bits", "sums are digital"),
    ("core.engine.crossbar.encoding_saves_bit", "false"),
    ("core.engine.crossbar.adc_ns", "hidden behind the read"),
    ("core.engine.crossbar.phases", "1"),
    ("core.engine.crossbar.write_row_ns", "weights are written once and stay"),
    ("core.engine.crossbar.noise", "none known"),
    ("core.engine.crossbar.noise.relaxed", "programming holds for good"),
    ("core.engine.crossbar.noise.compensates_drift", "false"),
    ("core.engine.crossbar.noise.drift_mean.below", "the logarithmic piece everywhere"),
    ("core.engine.crossbar.noise.drift_mean.polynomial", "the logarithmic piece everywhere"),
    ("core.engine.crossbar.noise.drift_sigma.below", "the logarithmic piece everywhere"),
    ("core.engine.crossbar.noise.drift_sigma.polynomial", "the logarithmic piece everywhere"),
    ("core.arithmetic.multiplier_bits", "unknown, or scales are no fixed-point numbers"),
    ("core.arithmetic.padding", "zero_point"),
    ("core.arithmetic.shared_scales", "none"),
    ("core.arithmetic.scheme", "nothing is quantized"),
    ("core.arithmetic.scheme.weights_symmetric", "false"),
    ("core.arithmetic.scheme.activations_symmetric", "false"),
    ("core.arithmetic.scheme.narrow_range", "false"),
    ("core.arithmetic.scheme.blocks", ""),
    ("core.arithmetic.table", "none"),
    ("core.operators.allow", "all run"),
    ("core.operators.deny", "none"),
    ("core.operators.batch_max", "any"),
    ("core.operators.fusions", "normalizations and activations melt into the product before them"),
    ("core.operators.limit", "none"),
    ("system.memory.capacity_bytes", "unknown, or a link"),
    ("system.memory.read_bytes_per_s", "unknown, never binding"),
    ("system.memory.write_bytes_per_s", "unknown, or read-only"),
    ("system.memory.keeps_weights", "false"),
    ("system.memory.latency_cycles", "none"),
    ("system.memory.burst_bytes", "1"),
    ("runtime.emits", "it runs what it accepts"),
    ("runtime.opset_min", "any"),
    ("runtime.opset_max", "any"),
    ("runtime.launch_us", "unknown, counted as none"),
    ("runtime.invoke_us", "unknown, counted as none"),
    ("runtime.deny", "none"),
    ("runtime.quirk", "none known"),
    ("runtime.quirk.weights", ""),
    ("runtime.quirk.activations", ""),
    ("runtime.quirk.speed_over_float", ""),
    ("energy.limit_w", "unknown"),
    ("energy.idle_w", "unknown"),
    ("energy.table", "energies of MACs are those stated, no others"),
    ("energy.process_scale", "1"),
    ("energy.mac", "unknown, or from the table"),
    ("energy.memory", "unknown"),
    ("energy.memory.write_pj_per_byte", "as read"),
    ("energy.crossbar", ""),
];

/// As above, for all keys of a table.
const MEANINGS_BELOW: &[(&str, &str)] = &[
    ("core.engine.crossbar.noise.", "none known"),
    ("core.operators.limit.", ""),
    ("energy.crossbar.", "part of another, or unknown"),
];

/// What stands for a key that is absent, by its path without indices. `None`: nobody says so.
pub(crate) fn meaning(kind: &str) -> Option<&'static str> {
    // Every table that lays work on an array has the same keys.
    let laid = ["unroll", "alternative"].iter().find_map(|table| {
        let (before, key) = kind.rsplit_once('.')?;
        before.ends_with(table).then_some(if key == "reduction" { "channels" } else { "1" })
    });
    let stated = MEANINGS.iter().find(|(known, _)| *known == kind).map(|it| it.1);
    let below = || MEANINGS_BELOW.iter().find(|(table, _)| kind.starts_with(table)).map(|it| it.1);
    stated.or(laid).or_else(below)
}
