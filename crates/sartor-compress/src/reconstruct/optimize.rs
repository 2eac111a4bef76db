//! The optimization of one block.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sartor_engine::{
    AdamW, Array, adamw_step,
    train::{BatchNormMode, Gradients, Parameters, Tape, TapeOptions},
};
use sartor_ir::{Graph, ValueId};

use super::{
    Reconstruct, ReconstructedBlock,
    cache::{Cache, Values, rows, run},
    fit,
    layers::Layers,
    piece::Piece,
    rounding::{Rounding, beta},
    segments::Segment,
};
use crate::{CompressError, calibrate::run_error};

/// One block and what its reconstruction needs.
pub(super) struct Reconstruction<'a> {
    pub(super) graph: &'a Graph,
    pub(super) segment: &'a Segment,
    pub(super) config: &'a Reconstruct,
    pub(super) batch: usize,
    /// Of each element of an output; 1 where there are none.
    pub(super) weights: &'a BTreeMap<ValueId, Vec<f32>>,
    /// Tells this block's random choices from those of others.
    pub(super) stream: u64,
}

/// `Σ (y - ŷ)²`, as it is and by the weights of the elements, and `Σ y²`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deviation {
    plain: f64,
    pub(super) weighted: f64,
    signal: f64,
}

impl Deviation {
    fn ratio(self) -> f64 {
        if self.signal > 0.0 { self.plain / self.signal } else { self.plain }
    }
}

impl Reconstruction<'_> {
    /// Rounds the weights of the block anew, and hands on what it makes of the samples.
    pub(super) fn run(
        &self,
        layers: &mut Layers,
        cache: &mut Cache,
        frozen: &mut BTreeSet<ValueId>,
        advance: &mut dyn FnMut(usize) -> Result<(), CompressError>,
    ) -> Result<ReconstructedBlock, CompressError> {
        let twin = self.piece(layers, cache, false)?;
        let program = twin.program(&[])?;
        let target = run(&program, self.segment, &cache.float, self.batch, &mut |_, _| {})?;
        let (before, made) = self.deviation(layers, cache, &target)?;
        let nearest = layers.clone();
        if before.weighted > 0.0 {
            self.optimize(layers, cache, frozen, (&target, before), advance)?;
        }
        if self.config.fit_scales {
            fit::scales(self, &twin, layers, cache, &target)?;
        }
        let (after, better) = self.deviation(layers, cache, &target)?;
        let worse = after.weighted > before.weighted;
        if worse {
            *layers = nearest;
        }
        let (after, made) = if worse { (before, made) } else { (after, better) };
        cache.advance(self.segment, (target, made));
        let own = self.members(layers).into_iter().map(|i| layers.weights[i].name.clone());
        Ok(ReconstructedBlock {
            layers: own.collect(),
            error_before: before.ratio(),
            error_after: after.ratio(),
        })
    }

    /// The layers of this block.
    pub(super) fn members(&self, layers: &Layers) -> Vec<usize> {
        let inside = |i: &usize| self.segment.nodes.contains(&layers.weights[*i].consumer);
        (0..layers.weights.len()).filter(inside).collect()
    }

    /// The block with the numbers as they are now, or as the float network has it.
    pub(super) fn piece(
        &self,
        layers: &Layers,
        cache: &Cache,
        rounding: bool,
    ) -> Result<Piece, CompressError> {
        let first: Vec<usize> = (0..self.batch).collect();
        let given = rows(&cache.float, &self.segment.inputs, &first)?;
        Piece::extract(self.graph, self.segment, &layers.constants(!rounding), rounding, &given)
    }

    /// How far the block is from its target now, and what it makes.
    pub(super) fn deviation(
        &self,
        layers: &Layers,
        cache: &Cache,
        target: &Values,
    ) -> Result<(Deviation, Values), CompressError> {
        let program = self.piece(layers, cache, true)?.program(&[])?;
        let made = run(&program, self.segment, &cache.quantized, self.batch, &mut |_, _| {})?;
        let mut sum = Deviation::default();
        for (id, y) in target {
            let (Some(y), Some(own)) = (y.as_f32(), made[id].as_f32()) else { continue };
            let weights = self.weights.get(id).map_or([1.0].as_slice(), Vec::as_slice);
            for ((y, own), weight) in y.iter().zip(own).zip(weights.iter().cycle()) {
                let (y, difference) = (f64::from(*y), f64::from(y - own));
                sum.plain += difference * difference;
                sum.weighted += f64::from(*weight) * difference * difference;
                sum.signal += y * y;
            }
        }
        Ok((sum, made))
    }

    fn optimize(
        &self,
        layers: &mut Layers,
        cache: &Cache,
        frozen: &mut BTreeSet<ValueId>,
        (target, before): (&Values, Deviation),
        advance: &mut dyn FnMut(usize) -> Result<(), CompressError>,
    ) -> Result<(), CompressError> {
        let piece = self.piece(layers, cache, true)?;
        let known = layers.clone();
        let mut learner = Learner::new(self, &piece, &known, frozen)?;
        let mut chance = Chance::new(self.config.seed, self.stream, cache.len());
        // The error of a batch in units of that of rounding to nearest.
        let unit = before.weighted / cache.len() as f64 * self.batch as f64;
        for step in 0..self.config.iterations {
            let chosen = chance.next(self.batch);
            let inputs = self.mixed(cache, &chosen, &mut chance)?;
            let wanted = rows(target, &self.segment.outputs, &chosen)?;
            learner.step(self, step, &inputs, (&wanted, unit))?;
            advance(step + 1)?;
        }
        learner.finish(layers, frozen);
        Ok(())
    }

    /// The inputs of the chosen samples: elements of what the quantized network makes, and by chance of what the float one
    /// makes.
    fn mixed(
        &self,
        cache: &Cache,
        chosen: &[usize],
        chance: &mut Chance,
    ) -> Result<Vec<Array>, CompressError> {
        let mut inputs = rows(&cache.quantized, &self.segment.inputs, chosen)?;
        let limit = (self.config.unrounded * 256.0).round() as u32;
        if limit == 0 {
            return Ok(inputs);
        }
        for (own, id) in inputs.iter_mut().zip(&self.segment.inputs) {
            if self.graph.inputs().contains(id) {
                continue;
            }
            let float = rows(&cache.float, &[*id], chosen)?;
            let (sartor_engine::Data::F32(own), Some(float)) = (&mut own.data, float[0].as_f32())
            else {
                continue;
            };
            let random = chance.bytes(own.len());
            for ((own, float), random) in own.iter_mut().zip(float).zip(random) {
                *own = if u32::from(*random) < limit { *float } else { *own };
            }
        }
        Ok(inputs)
    }
}

/// Random choices of one block.
struct Chance {
    numbers: ChaCha8Rng,
    order: Vec<usize>,
    next: usize,
    bytes: Vec<u8>,
}

impl Chance {
    fn new(seed: u64, stream: u64, count: usize) -> Self {
        let mut numbers = ChaCha8Rng::seed_from_u64(seed);
        numbers.set_stream(stream);
        Chance { numbers, order: (0..count).collect(), next: count, bytes: Vec::new() }
    }

    /// The next samples: each comes once before any comes again (Fisher and Yates' shuffle).
    fn next(&mut self, batch: usize) -> Vec<usize> {
        let mut chosen = Vec::with_capacity(batch);
        while chosen.len() < batch {
            if self.next == self.order.len() {
                for i in (1..self.order.len()).rev() {
                    let at = self.numbers.next_u64() % (i as u64 + 1);
                    self.order.swap(i, at as usize);
                }
                self.next = 0;
            }
            chosen.push(self.order[self.next]);
            self.next += 1;
        }
        chosen
    }

    fn bytes(&mut self, count: usize) -> &[u8] {
        self.bytes.resize(count, 0);
        self.numbers.fill_bytes(&mut self.bytes);
        &self.bytes
    }
}

/// Numbers that move by `Adam` (Kingma and Ba 2015) in units of their own.
#[derive(Clone, Debug)]
struct Moving {
    /// Position in the parameters.
    at: usize,
    from: Vec<f32>,
    moved: Vec<f32>,
    gradient: Vec<f32>,
    moments: [Vec<f32>; 2],
}

impl Moving {
    fn new(at: usize, from: &[f32]) -> Self {
        let zeros = vec![0.0; from.len()];
        let moments = [zeros.clone(), zeros.clone()];
        Moving { at, from: from.to_vec(), moved: zeros.clone(), gradient: zeros, moments }
    }

    fn step(&mut self, rate: f32, at: u32) {
        let adam = AdamW { rate, beta1: 0.9, beta2: 0.999, epsilon: 1e-12, weight_decay: 0.0 };
        let [m, v] = &mut self.moments;
        adamw_step(adam, at, &mut self.moved, &self.gradient, m, v);
    }
}

/// What learns in a block.
struct Learner<'a> {
    tape: Tape,
    parameters: Parameters,
    gradients: Gradients,
    /// Index of the layer, and its rounding; parameter `i` is the `i`-th of them.
    roundings: Vec<(usize, Rounding<'a>)>,
    /// Activation scales: `from · exp(moved)`.
    scales: Vec<(ValueId, Moving)>,
    /// Biases: `from + unit · moved`, with the layer's unit.
    biases: Vec<(usize, f32, Moving)>,
    elements: usize,
}

impl<'a> Learner<'a> {
    fn new(
        block: &Reconstruction<'_>,
        piece: &Piece,
        layers: &'a Layers,
        frozen: &BTreeSet<ValueId>,
    ) -> Result<Self, CompressError> {
        let config = block.config;
        let members = block.members(layers);
        let mut ids: Vec<ValueId> =
            members.iter().map(|i| piece.ids[&layers.weights[*i].value]).collect();
        let grids = members.iter().map(|&i| &layers.weights[i]);
        let roundings: Vec<_> = members
            .iter()
            .copied()
            .zip(grids.map(|it| Rounding::new(&it.grid, &it.float)))
            .collect();
        let mut scales = Vec::new();
        for (&id, &scale) in
            layers.scales.iter().filter(|it| config.scale_rate > 0.0 && !frozen.contains(it.0))
        {
            if let Some(&own) = piece.ids.get(&id) {
                scales.push((id, Moving::new(ids.len(), &[scale])));
                ids.push(own);
            }
        }
        let mut biases = Vec::new();
        for (i, bias) in layers.biases.iter().enumerate().filter(|_| config.bias_rate > 0.0) {
            let own = piece
                .ids
                .get(&bias.value)
                .copied()
                .filter(|_| block.segment.nodes.contains(&bias.consumer));
            if let Some(own) = own {
                let square =
                    bias.float.iter().map(|it| it * it).sum::<f32>() / bias.float.len() as f32;
                biases.push((
                    i,
                    square.sqrt().max(f32::MIN_POSITIVE),
                    Moving::new(ids.len(), &bias.now),
                ));
                ids.push(own);
            }
        }
        let options = TapeOptions {
            parameters: ids.clone(),
            batch_norm: BatchNormMode::Frozen,
            seed: config.seed.wrapping_add(block.stream << 32),
            unrounded: config.unrounded,
            ..TapeOptions::default()
        };
        let tape = Tape::prepare(&piece.graph, &piece.shapes, &options).map_err(run_error)?;
        let parameters = Parameters::from_graph(&piece.graph, &ids).map_err(run_error)?;
        let gradients = Gradients::new(&parameters);
        let elements = roundings.iter().map(|it| layers.weights[it.0].float.len()).sum();
        Ok(Learner { tape, parameters, gradients, roundings, scales, biases, elements })
    }

    fn step(
        &mut self,
        block: &Reconstruction<'_>,
        step: usize,
        inputs: &[Array],
        (wanted, unit): (&[Array], f64),
    ) -> Result<(), CompressError> {
        self.load();
        let made = self.tape.forward(&mut self.parameters, inputs).map_err(run_error)?;
        let slopes =
            made.iter().zip(wanted).zip(&block.segment.outputs).map(|((made, wanted), id)| {
                let weights = block.weights.get(id).map_or([1.0].as_slice(), Vec::as_slice);
                slope(made, wanted, weights, unit)
            });
        let slopes: Vec<Option<Array>> = slopes.collect();
        self.gradients.zero();
        self.tape.backward(&self.parameters, &slopes, &mut self.gradients).map_err(run_error)?;
        self.learn(block.config, step);
        Ok(())
    }

    /// Puts the numbers as they are now into the parameters.
    fn load(&mut self) {
        for (i, (_, rounding)) in self.roundings.iter().enumerate() {
            rounding.soft(self.parameters.get_mut(i));
        }
        for (_, it) in &self.scales {
            self.parameters.get_mut(it.at)[0] = it.from[0] * it.moved[0].exp();
        }
        for (_, unit, it) in &self.biases {
            let values =
                self.parameters.get_mut(it.at).iter_mut().zip(it.from.iter().zip(&it.moved));
            values.for_each(|(b, (from, moved))| *b = from + unit * moved);
        }
    }

    fn learn(&mut self, config: &Reconstruct, step: usize) {
        let (at, count) = (step as u32 + 1, config.iterations as f32);
        let share = step as f32 / count;
        let begun = share >= config.warmup;
        let exponent = beta((share - config.warmup) / (1.0 - config.warmup).max(f32::EPSILON));
        let push = if begun { config.push / self.elements.max(1) as f32 } else { 0.0 };
        for (i, (_, rounding)) in self.roundings.iter_mut().enumerate() {
            rounding.step(self.gradients.get(i), (push, exponent), (at, config.rate));
        }
        let fall = f32::midpoint(1.0, (std::f32::consts::PI * share).cos());
        for (_, it) in &mut self.scales {
            it.gradient[0] = self.gradients.get(it.at)[0] * self.parameters.get(it.at)[0];
            it.step(config.scale_rate * fall, at);
        }
        for (_, unit, it) in &mut self.biases {
            let scaled = it.gradient.iter_mut().zip(self.gradients.get(it.at));
            scaled.for_each(|(own, g)| *own = g * *unit);
            it.step(config.bias_rate * fall, at);
        }
    }

    /// Rounds, and writes what was learnt.
    fn finish(mut self, layers: &mut Layers, frozen: &mut BTreeSet<ValueId>) {
        self.load();
        for (i, rounding) in &self.roundings {
            layers.weights[*i].rounded = rounding.hard();
        }
        for (id, it) in &self.scales {
            layers.scales.insert(*id, self.parameters.get(it.at)[0]);
            frozen.insert(*id);
        }
        for (i, _, it) in &self.biases {
            layers.biases[*i].now = self.parameters.get(it.at).to_vec();
        }
    }
}

/// d error / d output.
fn slope(made: &Array, wanted: &Array, weights: &[f32], unit: f64) -> Option<Array> {
    let (own, y) = (made.as_f32()?, wanted.as_f32()?);
    let factor = (2.0 / unit) as f32;
    let weighted =
        own.iter().zip(y).zip(weights.iter().cycle()).map(|((own, y), w)| factor * w * (own - y));
    Some(Array::f32(&made.shape, weighted.collect()))
}
