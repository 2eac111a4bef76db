//! Moving elements: reshapes, transposes, windows, padding, joining.

use rayon::prelude::*;
use sartor_ir::{Op, PadMode, normalize_axis};

use super::{Fast, Made, Reads, Seen, Site, made};
use crate::{
    reference::{
        self,
        layout::{self, View},
    },
    simd::Into,
};

/// Elements of one task.
const TASK: usize = 1 << 14;

/// The same elements under another shape.
#[derive(Debug)]
struct Reshape;

pub(super) fn prepare_reshape(site: &Site<'_>) -> Option<Made> {
    if site.floats(1) { made(Reshape, &[0]) } else { None }
}

impl Fast for Reshape {
    fn forward(&mut self, inputs: &[&[f32]], y: &mut [f32]) {
        let parts = y.par_chunks_mut(TASK).zip(inputs[0].par_chunks(TASK));
        parts.for_each(|(y, x)| y.copy_from_slice(x));
    }

    fn backward(&mut self, _seen: &Seen<'_>, _dy: &mut [f32], _into: &mut [Option<Into<'_>>]) {}

    fn reads(&self) -> Reads {
        Reads::default()
    }

    fn passes(&self) -> &[usize] {
        &[0]
    }
}

pub(super) fn prepare(site: &Site<'_>) -> Option<Made> {
    let x = &site.shapes[0];
    if !site.floats(1) {
        return None;
    }
    let known = |i: usize| !site.given(i) || site.constants[i].is_some();
    match &site.step.op {
        Op::Transpose(it) => made(FastView(View::transpose(x, &it.resolve(x.len()).ok()?)), &[0]),
        Op::Slice if (1..5).all(known) => {
            let windows = reference::slice_windows(x, &site.constants).ok()?;
            made(FastView(View::slice(x, &windows)), &[0])
        }
        Op::Pad(it) if it.mode == PadMode::Constant && (1..4).all(known) && !site.wants(1..4) => {
            let fill = if site.given(2) { *site.constants[2]?.as_f32()?.first()? } else { 0.0 };
            let tables = reference::pad_tables(it, x, &site.constants).ok()?;
            // The part of the output in which the whole input stands.
            let mut windows = Vec::with_capacity(x.len());
            for (table, &n) in tables.iter().zip(x) {
                let start = table.iter().position(Option::is_some)?;
                let whole = table[start..].iter().take_while(|it| it.is_some()).copied();
                if !whole.eq((0..n).map(Some)) {
                    return None;
                }
                windows.push((start, 1, n));
            }
            let inside = View::slice(&site.output, &windows);
            made(FastPad { shape: x.clone(), tables, fill, inside }, &[0])
        }
        Op::Concat(it) if site.floats(site.shapes.len()) => {
            let axis = normalize_axis(it.axis, site.output.len()).ok()?;
            let mut windows: Vec<_> = site.output.iter().map(|&n| (0, 1, n)).collect();
            let mut parts = Vec::with_capacity(site.shapes.len());
            for shape in &site.shapes {
                windows[axis].2 = shape[axis];
                parts.push(View::slice(&site.output, &windows));
                windows[axis].0 += shape[axis];
            }
            let runs = site.shapes.iter().map(|it| it[axis..].iter().product()).collect();
            let outer = site.output[..axis].iter().product();
            made(FastConcat { outer, runs, parts }, &(0..site.shapes.len()).collect::<Vec<_>>())
        }
        _ => None,
    }
}

/// Adds or writes what `view` shows of `from` to `to`.
fn read(view: &View, from: &[f32], to: &mut Into<'_>) {
    if !to.accumulate {
        return view.copy(from, to.values);
    }
    let row = view.shape.last().copied().unwrap_or(1);
    let stride = view.strides.last().copied().unwrap_or(1);
    let mut rest = &mut *to.values;
    view.for_each_row(|at| {
        let (run, tail) = std::mem::take(&mut rest).split_at_mut(row);
        rest = tail;
        for (i, to) in run.iter_mut().enumerate() {
            *to += from[at.wrapping_add_signed(i.cast_signed() * stride)];
        }
    });
}

/// Adds each element of `from` to the element of `to` that the view shows there.
fn scatter(view: &View, from: &[f32], to: &mut Into<'_>) {
    to.start();
    let row = view.shape.last().copied().unwrap_or(1);
    let stride = view.strides.last().copied().unwrap_or(1);
    let mut rest = from;
    view.for_each_row(|at| {
        let (run, tail) = rest.split_at(row);
        rest = tail;
        for (i, from) in run.iter().enumerate() {
            to.values[at.wrapping_add_signed(i.cast_signed() * stride)] += from;
        }
    });
}

#[derive(Debug)]
struct FastView(View);

impl Fast for FastView {
    fn forward(&mut self, inputs: &[&[f32]], y: &mut [f32]) {
        self.0.copy(inputs[0], y);
    }

    fn backward(&mut self, _seen: &Seen<'_>, dy: &mut [f32], into: &mut [Option<Into<'_>>]) {
        if let Some(dx) = &mut into[0] {
            scatter(&self.0, dy, dx);
        }
    }

    fn reads(&self) -> Reads {
        Reads::default()
    }
}

#[derive(Debug)]
struct FastPad {
    shape: Vec<usize>,
    tables: Vec<Vec<Option<usize>>>,
    fill: f32,
    inside: View,
}

impl Fast for FastPad {
    fn forward(&mut self, inputs: &[&[f32]], y: &mut [f32]) {
        layout::pad(inputs[0], &self.shape, &self.tables, self.fill, y);
    }

    fn backward(&mut self, _seen: &Seen<'_>, dy: &mut [f32], into: &mut [Option<Into<'_>>]) {
        if let Some(dx) = &mut into[0] {
            read(&self.inside, dy, dx);
        }
    }

    fn reads(&self) -> Reads {
        Reads::default()
    }
}

#[derive(Debug)]
struct FastConcat {
    outer: usize,
    runs: Vec<usize>,
    parts: Vec<View>,
}

impl Fast for FastConcat {
    fn forward(&mut self, inputs: &[&[f32]], y: &mut [f32]) {
        let parts: Vec<_> = inputs.iter().copied().zip(self.runs.iter().copied()).collect();
        layout::concat(&parts, self.outer, y);
    }

    fn backward(&mut self, _seen: &Seen<'_>, dy: &mut [f32], into: &mut [Option<Into<'_>>]) {
        for (view, into) in self.parts.iter().zip(into) {
            if let Some(into) = into {
                read(view, dy, into);
            }
        }
    }

    fn reads(&self) -> Reads {
        Reads::default()
    }
}
