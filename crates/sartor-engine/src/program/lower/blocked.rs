//! Chains of convolutions in the inner layout: which values have a twin in blocked channels, and when it is made.

use sartor_ir::{DType, Fact, Node, Op, TensorType, ValueId};

use super::{Action, Draft, Lowering, fuse::Elementwise};
use crate::{
    kernel::{
        Kernel,
        blocked::{self, Direction, Reorder},
    },
    simd::blocked::lanes,
    stage::Stage,
};

impl Lowering<'_> {
    /// Adds a step that works on blocked channels, if `node` has one.
    pub(super) fn add_blocked(&mut self, node: &Node) -> bool {
        match &node.op {
            Op::Conv(it) => {
                let level = self.level;
                let site = self.site(node, 0);
                let kernel = site.and_then(|site| blocked::prepare_conv(it, &site, level));
                let (Some(kernel), Some(x)) = (kernel, node.input(0)) else { return false };
                if !self.is_float(x) || !self.is_float(node.output()) {
                    return false;
                }
                let x = if kernel.reads_plain() {
                    self.need_plain(x);
                    x
                } else {
                    match self.blocked(x) {
                        Some(x) => x,
                        None => return false,
                    }
                };
                let Some(y) = self.new_twin(node.output()) else { return false };
                self.push(node, Action::Fast(Box::new(kernel)), vec![Some(x)], vec![Some(y)]);
                true
            }
            Op::Slice | Op::Pad(_) => self.add_selection(node),
            Op::GlobalPool(_) | Op::Pool(_) => self.add_plane_means(node),
            _ => self.add_blocked_stage(node),
        }
    }

    fn add_selection(&mut self, node: &Node) -> bool {
        let y = node.output();
        let Some(x) = node.input(0).and_then(|it| self.twin(it)) else { return false };
        let site = if self.is_float(y) { self.site(node, 0) } else { None };
        let kernel = site.and_then(|site| blocked::prepare_select(&site, self.level));
        let Some(kernel) = kernel else { return false };
        let Some(y) = self.new_twin(y) else { return false };
        self.push(node, Action::Fast(Box::new(kernel)), vec![Some(x)], vec![Some(y)]);
        true
    }

    fn add_plane_means(&mut self, node: &Node) -> bool {
        let (Some(id), y) = (node.input(0), node.output()) else { return false };
        let (Some(x), Some(y_shape)) = (self.shape(id), self.shape(y)) else { return false };
        let Some(twin) = self.twin(id) else { return false };
        let single = node.outputs.len() == 1 && self.is_float(y);
        if !single || !blocked::is_plane_mean(&node.op, &x, &y_shape) {
            return false;
        }
        let kernel = self.reorder(&x, Direction::Means);
        self.push(node, Action::Fast(kernel), vec![Some(twin)], vec![Some(y)]);
        true
    }

    /// An elementwise node one of whose inputs has a twin, if what it does is the same in any layout.
    fn add_blocked_stage(&mut self, node: &Node) -> bool {
        let output = node.output();
        let single = node.outputs.len() == 1 && self.is_float(output);
        let Some(choices) = single.then(|| self.elementwise(node)).flatten() else { return false };
        let inputs: Vec<_> =
            choices.iter().flat_map(|it| [Some(it.main), it.with]).flatten().collect();
        if !inputs.iter().any(|&it| self.twin(it).is_some()) {
            return false;
        }
        if let Some(it) = choices.iter().find(|it| !it.stage.ignores_layout()) {
            return self
                .twin(it.main)
                .is_some_and(|main| self.absorb_into(main, &it.stage, output));
        }
        let mut twins = Vec::new();
        for it in choices {
            let Some(main) = self.blocked(it.main) else { return false };
            let with = match it.with {
                None => None,
                Some(with) => match self.blocked(with) {
                    Some(with) => Some(with),
                    None => return false,
                },
            };
            twins.push(Elementwise { main, with, ..it });
        }
        let Some(y) = self.new_twin(output) else { return false };
        self.add_choices(node, twins, y)
    }

    /// Makes a stage along channels part of the convolution that makes its input, if it can.
    fn absorb_into(&mut self, main: ValueId, stage: &Stage, output: ValueId) -> bool {
        let it = Elementwise { main, stage: stage.clone(), with: None };
        let Some(at) = self.fusible(&it) else { return false };
        if !self.drafts[at].absorb(stage) {
            return false;
        }
        let Some(y) = self.new_twin(output) else { return false };
        self.drafts[at].outputs = vec![Some(y)];
        self.maker.insert(y, at);
        true
    }

    /// The blocked twin of a value, if it has one under this shape.
    fn twin(&self, id: ValueId) -> Option<ValueId> {
        let root = self.root[id.index()];
        let twin = *self.twins.get(&root)?;
        (root == id || self.shape(root) == self.shape(id)).then_some(twin)
    }

    /// The blocked twin of a value, made from it now if need be; `None` if it cannot have one.
    fn blocked(&mut self, id: ValueId) -> Option<ValueId> {
        if let Some(twin) = self.twin(id) {
            return Some(twin);
        }
        let root = self.root[id.index()];
        let fits = root == id && !self.twins.contains_key(&root) && self.is_float(id);
        if !fits || self.constants[id.index()].is_some() {
            return None;
        }
        let shape = self.shape(id)?;
        let twin = self.new_twin(id)?;
        let names = (self.graph.value(id).name.clone(), "Reorder".to_owned());
        let kernel = self.reorder(&shape, Direction::In);
        self.push_draft(names, Action::Fast(kernel), vec![Some(id)], vec![Some(twin)]);
        Some(twin)
    }

    /// Sees to it that a value is there as the graph has it.
    pub(super) fn need_plain(&mut self, id: ValueId) {
        let root = self.root[id.index()];
        let Some(&twin) = self.twins.get(&root) else { return };
        let given = self.graph.inputs().contains(&root);
        if given || self.maker.contains_key(&root) {
            return;
        }
        let Some(shape) = self.shape(root) else { return };
        let names = (self.graph.value(root).name.clone(), "Reorder".to_owned());
        let kernel = self.reorder(&shape, Direction::Out);
        self.push_draft(names, Action::Fast(kernel), vec![Some(twin)], vec![Some(root)]);
    }

    /// A value behind those of the graph, for `id` in blocked channels.
    fn new_twin(&mut self, id: ValueId) -> Option<ValueId> {
        let shape = self.shape(id)?;
        let [n, c, plane @ ..] = shape.as_slice() else { return None };
        if plane.is_empty() || plane.len() > 2 {
            return None;
        }
        let lanes = lanes(self.level);
        let dims = [&[*n, c.div_ceil(lanes)], plane, &[lanes]].concat();
        let twin = ValueId::from_index(self.root.len());
        let ty = TensorType::fixed(DType::F32, &dims);
        self.facts.push(Some(Fact::of(ty)));
        self.constants.push(None);
        self.root.push(twin);
        if let Some(&reads) = self.reads.get(&id) {
            self.reads.insert(twin, reads);
        }
        if self.pinned.contains(&id) {
            self.pinned.insert(twin);
        }
        self.twins.insert(id, twin);
        Some(twin)
    }

    /// Appends a step.
    pub(super) fn push_draft(
        &mut self,
        (node, kind): (String, String),
        action: Action,
        inputs: Vec<Option<ValueId>>,
        outputs: Vec<Option<ValueId>>,
    ) {
        for &output in outputs.iter().flatten() {
            self.maker.insert(output, self.drafts.len());
        }
        self.drafts.push(Draft { node, kind, action, inputs, outputs, stages: Vec::new() });
    }

    fn reorder(&self, shape: &[usize], direction: Direction) -> Box<dyn Kernel> {
        let plane = shape[2..].iter().product();
        Box::new(Reorder { lanes: lanes(self.level), channels: shape[1], plane, direction })
    }
}
