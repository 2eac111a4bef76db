//! Against Vela 5.2.0, operator by operator.

use std::sync::Arc;

use sartor_chip::find;

use super::{
    machine::{Machine, Port, Volume},
    memo::Memo,
    schedule::{Price, prices},
    task::{Activation, Home, Kernel, Map, Task, Weights, Work},
};

/// Kind, kernel, inputs, outputs, percent of zeros and stored weights on the U55-128; then array and total cycles on six machines.
/// Convolutions over 16 × 16 positions with random weights, everything in SRAM; from runs of `ethos-u-vela` 5.2.0.
const SWEEP: &str = include_str!("sweep.txt");

/// A chip of the library with everything in its nearest memory (Vela's mode `Sram_Only`).
fn in_sram(id: &str) -> Machine {
    let mut machine = Machine::of(&find(id).unwrap()).unwrap();
    // The runs of the U85 were for the system "SYS_Flash_High", of the same width a cycle.
    machine.memories.truncate(1);
    (machine.staging, machine.features, machine.constants) = (0, 0, 0);
    machine.staging_limit = 1 << 30;
    machine
}

fn machines() -> [Machine; 6] {
    ["u55-32", "u55-64", "u55-128", "u55-256", "u65-512", "u85-256"]
        .map(|it| in_sram(&format!("arm-ethos-{it}")))
}

/// Uniform from −127 to 127, `zeros` percent of them zero.
fn noise(count: u64, zeros: u64) -> Arc<[i16]> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % n
    };
    (0..count).map(|_| if next(100) < zeros { 0 } else { next(255) as i16 - 127 }).collect()
}

/// A convolution of 16 × 16 positions, all of them kept.
fn convolution(
    depthwise: bool,
    kernel: u64,
    inputs: u64,
    outputs: u64,
    values: Arc<[i16]>,
) -> Task {
    let map = |d| Map { size: Volume::new(16, 16, d), bits: 8, linear: true, home: Home::Features };
    Task {
        work: if depthwise { Work::Depthwise } else { Work::Conv },
        input: map(inputs),
        operand: None,
        output: map(outputs),
        kernel: Kernel { h: kernel, w: kernel, ..Kernel::POINT },
        weights: Some(Weights {
            outputs,
            inputs: if depthwise { 1 } else { inputs },
            h: kernel,
            w: kernel,
            values: Some(values),
            ratio: 1.0,
            sparse: None,
        }),
        activation: Activation::None,
        chain: Vec::new(),
    }
}

fn dense(depthwise: bool, kernel: u64, inputs: u64, outputs: u64, zeros: u64) -> Task {
    let taken = if depthwise { 1 } else { inputs };
    let values = noise(outputs * taken * kernel * kernel, zeros);
    convolution(depthwise, kernel, inputs, outputs, values)
}

fn price(machine: &Machine, task: &Task) -> Arc<Price> {
    prices(machine, [task], &mut Memo::default()).remove(0).unwrap()
}

#[test]
fn the_sweep_of_single_operators_is_the_compilers() {
    let machines = machines();
    let mut points = 0;
    for line in SWEEP.lines() {
        let cells: Vec<_> = line.split_whitespace().collect();
        let number = |at: usize| cells[at].parse::<u64>().unwrap();
        let task = dense(cells[0] == "dw", number(1), number(2), number(3), number(4));
        for (machine, cell) in machines.iter().zip(&cells[6..]) {
            let found = price(machine, &task);
            let (array, total) = cell.split_once('/').unwrap();
            let (array, total): (f64, f64) = (array.parse().unwrap(), total.parse().unwrap());
            assert!((found.array - array).abs() < 0.5, "{line}: {} and {array}", found.array);
            let error = found.cycles() / total - 1.0;
            assert!(error.abs() < 0.01, "{line}: {} and {total}", found.cycles());
            points += 1;
        }
        let stored = price(&machines[2], &task).weights as f64 / number(5) as f64;
        assert!((0.93..1.02).contains(&stored), "{line}: weights {stored}");
    }
    assert_eq!(points, 6 * 48);
}

/// Where more than 32 inputs of a 1×1 convolution keep the array busy, it takes its rounded multiplications, and a drain.
#[test]
fn the_law_of_the_staircase_is_exact() {
    let drains = [2496.0, 1472.0, 1856.0, 2624.0, 1088.0];
    let macs = [32.0, 64.0, 128.0, 256.0, 512.0];
    for (machine, (drain, macs)) in machines().iter().zip(drains.into_iter().zip(macs)) {
        for inputs in [64, 65, 96, 127, 128, 129, 160] {
            let found = price(machine, &dense(false, 1, inputs, 32, 0)).array;
            let slots = 256 * inputs.next_multiple_of(32) * 32;
            let law = slots as f64 / macs + drain;
            assert!((found - law).abs() < 0.5, "{inputs}: {found} and {law}");
        }
    }
}

/// Array cycles of the U85 on weights of which two of four are zero, and on others.
#[test]
fn two_of_four_zeros_halve_the_array_time_of_the_u85() {
    for (id, kernel, inputs, outputs, full, half) in [
        ("arm-ethos-u85-256", 3, 64, 64, 51472.0, 26128.0),
        ("arm-ethos-u85-256", 3, 128, 128, 200_464.0, 100_624.0),
        ("arm-ethos-u85-256", 1, 128, 64, 9152.0, 5184.0),
        ("arm-ethos-u85-256", 1, 256, 256, 66656.0, 33856.0),
    ] {
        let machine = in_sram(id);
        let mut task = dense(false, kernel, inputs, outputs, 0);
        let found = price(&machine, &task).array;
        assert!((found - full).abs() < 0.5, "{kernel} {inputs}: {found} and {full}");
        let values = noise(outputs * inputs * kernel * kernel, 0);
        let kept = values.iter().enumerate().map(|(i, &it)| if i % 4 < 2 { it } else { 0 });
        task.weights.as_mut().unwrap().values = Some(kept.collect());
        let found = price(&machine, &task);
        assert!(found.sparse && (found.array - half).abs() < 0.5, "{kernel} {inputs}: {found:?}");
    }
}

#[test]
fn odd_shapes_are_priced_and_never_panic() {
    let ids = ["arm-ethos-u55-32", "arm-ethos-u55-256", "arm-ethos-u65-512", "arm-ethos-u85-128"];
    for id in ids.into_iter().chain(["arm-ethos-u85-2048"]) {
        let machine = Machine::of(&find(id).unwrap()).unwrap();
        for (h, w, d) in [(1, 1, 1), (1, 1, 4097), (257, 1, 3), (7, 513, 5), (1, 2, 65)] {
            for kernel in [1, 2, 5, 17] {
                for bits in [8, 16] {
                    let (outputs, depthwise) = if kernel == 2 { (d, true) } else { (33, false) };
                    let mut task = dense(depthwise, kernel, d, outputs, 0);
                    task.input.size = Volume::new(h + kernel - 1, w + kernel - 1, d);
                    task.output.size = Volume::new(h, w, task.output.size.d);
                    (task.input.bits, task.output.bits) = (bits, bits);
                    if d > 100 {
                        task.weights.as_mut().unwrap().values = None;
                    }
                    let all = prices(&machine, [&task, &task], &mut Memo::default());
                    for found in all.into_iter().flatten() {
                        assert!(
                            found.cycles().is_finite() && found.cycles() > 0.0,
                            "{id} {task:?}"
                        );
                    }
                }
            }
        }
    }
    let port = Port {
        bandwidth: f64::MAX,
        read_latency: 0.0,
        write_latency: 0.0,
        burst: 1,
        ports: 1,
        reads: 1,
        writes: 1,
    };
    let mut machine = in_sram("arm-ethos-u85-512");
    machine.memories = vec![port];
    assert!(price(&machine, &dense(false, 3, 16, 16, 0)).cycles() > 0.0);
}
