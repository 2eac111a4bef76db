//! The graph and its only mutators.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::{NodeId, Op, Tensor, TensorType, ValueId};

/// Why a change of a graph was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GraphError {
    /// Two values share a name.
    #[error("two values are named `{0}`")]
    DuplicateName(String),
    /// A value is produced twice, or is a graph input or constant and produced as well.
    #[error("value `{0}` has more than one producer")]
    TwoProducers(String),
    /// Nodes wait for each other.
    #[error("the graph has a cycle through {}", quoted(.0))]
    Cycle(Vec<String>),
    /// No value has this name.
    #[error("no value is named `{0}`")]
    NoSuchValue(String),
}

fn quoted(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(8).map(|it| format!("`{it}`")).collect();
    let more = if names.len() > 8 {
        format!(" and {} more nodes", names.len() - 8)
    } else {
        String::new()
    };
    format!("{}{more}", shown.join(", "))
}

/// An operator at work: what it reads and what it makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Name, unique where the file had unique names; may be empty.
    pub name: String,
    /// Free text of the file.
    pub doc: String,
    /// The operator and its attributes.
    pub op: Op,
    /// Inputs in the operator's order; `None` where an optional one is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// Outputs in the operator's order; `None` where an optional one is left out.
    pub outputs: Vec<Option<ValueId>>,
    /// Values that subgraphs in the attributes read by name.
    pub captures: Vec<ValueId>,
}

impl Node {
    /// The `i`-th input, if given.
    pub fn input(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    /// The first output that is given; every operator has one. Only operators by name may leave out
    /// those before it (an `LSTM` of which the last state alone is read).
    ///
    /// # Panics
    /// If the node has no output, which [`crate::verify`] refuses.
    pub fn output(&self) -> ValueId {
        let mut given = self.outputs.iter().flatten();
        *given.next().expect("a verified node has an output")
    }

    /// Everything that the node reads, captures included.
    pub fn reads(&self) -> impl Iterator<Item = ValueId> {
        self.inputs.iter().flatten().chain(&self.captures).copied()
    }
}

/// An edge: a graph input, a constant or the output of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Name, unique in the graph.
    pub name: String,
    /// Element type and shape as declared or inferred.
    pub ty: Option<TensorType>,
    /// The elements, if the value is a constant (ONNX: an initializer).
    pub constant: Option<Tensor>,
}

/// Who reads each value: a side table, valid until the graph changes.
#[derive(Clone, Debug)]
pub struct Consumers(Vec<Vec<(NodeId, usize)>>);

impl Consumers {
    /// The nodes that read `value`, with the input position (captures come after the inputs).
    pub fn of(&self, value: ValueId) -> &[(NodeId, usize)] {
        &self.0[value.index()]
    }
}

/// A network: nodes in an order in which they can run, and the values between them.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Graph {
    /// Name of the graph.
    pub name: String,
    /// Free text of the file.
    pub doc: String,
    /// Operator set versions by domain (`""` is ONNX's own), which bind [`Op::Named`] nodes.
    pub opsets: BTreeMap<String, i64>,
    /// Key-value pairs of the file, such as the producer, in the file's order.
    pub metadata: Vec<(String, String)>,
    nodes: Vec<Option<Node>>,
    order: Vec<NodeId>,
    values: Vec<Value>,
    producers: Vec<Option<NodeId>>,
    names: BTreeMap<String, ValueId>,
    inputs: Vec<ValueId>,
    outputs: Vec<ValueId>,
}

impl Graph {
    /// An empty graph of ONNX opset 17.
    pub fn new(name: &str) -> Self {
        let opsets = BTreeMap::from([(String::new(), 17)]);
        Graph { name: name.to_owned(), opsets, ..Default::default() }
    }

    /// Nodes in topological order.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = (NodeId, &Node)> {
        self.order.iter().map(|&id| (id, self.node(id)))
    }

    /// Number of live nodes.
    pub fn node_count(&self) -> usize {
        self.order.len()
    }

    /// Length of a dense side table indexed by [`NodeId::index`] (removed nodes keep their slot).
    pub fn node_slots(&self) -> usize {
        self.nodes.len()
    }

    /// The node `id`.
    ///
    /// # Panics
    /// If it was removed or belongs to another graph.
    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.index()].as_ref().expect("the node was not removed")
    }

    /// The node `id`, to change its operator or name; inputs and outputs have their own mutators.
    ///
    /// # Panics
    /// As [`Graph::node`].
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id.index()].as_mut().expect("the node was not removed")
    }

    /// The node of this name, the first in order if there are several.
    pub fn find_node(&self, name: &str) -> Option<NodeId> {
        self.nodes().find(|(_, node)| node.name == name).map(|(id, _)| id)
    }

    /// Number of values, dead ones included: the length of a dense side table.
    pub fn value_count(&self) -> usize {
        self.values.len()
    }

    /// All values, dead ones included.
    pub fn values(&self) -> impl Iterator<Item = (ValueId, &Value)> {
        self.values.iter().enumerate().map(|(i, value)| (ValueId(i as u32), value))
    }

    /// The value `id`.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// The value of this name.
    pub fn find_value(&self, name: &str) -> Option<ValueId> {
        self.names.get(name).copied()
    }

    /// The constant behind `id`, if it is one.
    pub fn constant(&self, id: ValueId) -> Option<&Tensor> {
        self.value(id).constant.as_ref()
    }

    /// The constant behind input `i` of `node`, if there is one.
    pub fn constant_input(&self, node: &Node, i: usize) -> Option<&Tensor> {
        self.constant(node.input(i)?)
    }

    /// The node that makes `id`; `None` for graph inputs and constants.
    pub fn producer(&self, id: ValueId) -> Option<NodeId> {
        self.producers[id.index()]
    }

    /// The network's inputs.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// The network's outputs.
    pub fn outputs(&self) -> &[ValueId] {
        &self.outputs
    }

    /// Who reads what.
    pub fn consumers(&self) -> Consumers {
        let mut table = vec![Vec::new(); self.values.len()];
        for (id, node) in self.nodes() {
            for (i, input) in node.inputs.iter().enumerate() {
                if let Some(value) = input {
                    table[value.index()].push((id, i));
                }
            }
            for (i, value) in node.captures.iter().enumerate() {
                table[value.index()].push((id, node.inputs.len() + i));
            }
        }
        Consumers(table)
    }

    /// Whether a subgraph reads `id` by name, so that its name must stay.
    pub fn is_captured(&self, id: ValueId) -> bool {
        self.nodes().any(|(_, node)| node.captures.contains(&id))
    }

    /// A name that no value has yet, from `stem`.
    pub fn fresh_name(&self, stem: &str) -> String {
        if !self.names.contains_key(stem) {
            return stem.to_owned();
        }
        let names = (1..).map(|i| format!("{stem}_{i}"));
        names
            .into_iter()
            .find(|it| !self.names.contains_key(it))
            .expect("the numbers do not run out")
    }

    /// Adds a value that nothing makes yet.
    ///
    /// # Errors
    /// [`GraphError::DuplicateName`].
    pub fn add_value(&mut self, name: &str, ty: Option<TensorType>) -> Result<ValueId, GraphError> {
        let id = ValueId(u32::try_from(self.values.len()).expect("fewer than 2^32 values"));
        if self.names.insert(name.to_owned(), id).is_some_and(|old| {
            self.names.insert(name.to_owned(), old);
            true
        }) {
            return Err(GraphError::DuplicateName(name.to_owned()));
        }
        self.values.push(Value { name: name.to_owned(), ty, constant: None });
        self.producers.push(None);
        Ok(id)
    }

    /// Adds a graph input.
    ///
    /// # Errors
    /// [`GraphError::DuplicateName`].
    pub fn add_input(&mut self, name: &str, ty: TensorType) -> Result<ValueId, GraphError> {
        let id = self.add_value(name, Some(ty))?;
        self.inputs.push(id);
        Ok(id)
    }

    /// Adds a constant.
    ///
    /// # Errors
    /// [`GraphError::DuplicateName`].
    pub fn add_constant(&mut self, name: &str, tensor: Tensor) -> Result<ValueId, GraphError> {
        let id = self.add_value(name, Some(tensor.ty()))?;
        self.values[id.index()].constant = Some(tensor);
        Ok(id)
    }

    /// Adds a constant under a fresh name made from `stem`.
    pub fn add_fresh_constant(&mut self, stem: &str, tensor: Tensor) -> ValueId {
        let name = self.fresh_name(stem);
        self.add_constant(&name, tensor).expect("the name is fresh")
    }

    /// Replaces the elements of a constant (the type follows), or makes a value without producer one.
    pub fn set_constant(&mut self, id: ValueId, tensor: Tensor) {
        let value = &mut self.values[id.index()];
        value.ty = Some(tensor.ty());
        value.constant = Some(tensor);
    }

    /// Sets what is known of a value's type.
    pub fn set_type(&mut self, id: ValueId, ty: Option<TensorType>) {
        self.values[id.index()].ty = ty;
    }

    /// Forgets inferred types of everything that a node makes, before a change of shapes is inferred anew.
    pub fn forget_types(&mut self) {
        for (value, producer) in self.values.iter_mut().zip(&self.producers) {
            if producer.is_some() {
                value.ty = None;
            }
        }
    }

    /// Appends a node that makes new values of the given names. Call [`Graph::sort`] if one of the
    /// inputs is made by a later node.
    ///
    /// # Errors
    /// [`GraphError::DuplicateName`].
    pub fn add_node(
        &mut self,
        name: &str,
        op: Op,
        inputs: &[ValueId],
        outputs: &[&str],
    ) -> Result<Vec<ValueId>, GraphError> {
        let made =
            outputs.iter().map(|it| self.add_value(it, None)).collect::<Result<Vec<_>, _>>()?;
        self.push_node(Node {
            name: name.to_owned(),
            doc: String::new(),
            op,
            inputs: inputs.iter().copied().map(Some).collect(),
            outputs: made.iter().copied().map(Some).collect(),
            captures: Vec::new(),
        })?;
        Ok(made)
    }

    /// Appends a node whose outputs are existing values without producer.
    ///
    /// # Errors
    /// [`GraphError::TwoProducers`].
    pub fn push_node(&mut self, node: Node) -> Result<NodeId, GraphError> {
        let id = NodeId(u32::try_from(self.nodes.len()).expect("fewer than 2^32 nodes"));
        for &value in node.outputs.iter().flatten() {
            let taken = self.producers[value.index()].is_some()
                || self.value(value).constant.is_some()
                || self.inputs.contains(&value);
            if taken {
                return Err(GraphError::TwoProducers(self.value(value).name.clone()));
            }
            self.producers[value.index()] = Some(id);
        }
        self.nodes.push(Some(node));
        self.order.push(id);
        Ok(id)
    }

    /// Takes a node out; its outputs stay as values without producer.
    pub fn remove_node(&mut self, id: NodeId) -> Node {
        let node = self.nodes[id.index()].take().expect("the node was not removed before");
        self.order.retain(|&it| it != id);
        for value in node.outputs.iter().flatten() {
            self.producers[value.index()] = None;
        }
        node
    }

    /// Changes one input of a node, lengthening the list if need be.
    pub fn set_input(&mut self, id: NodeId, i: usize, value: Option<ValueId>) {
        let inputs = &mut self.node_mut(id).inputs;
        if inputs.len() <= i {
            inputs.resize(i + 1, None);
        }
        inputs[i] = value;
    }

    /// Lets every reader of `from`, and the graph's outputs if `outputs`, read `to` instead.
    /// Captures cannot be redirected: ask [`Graph::is_captured`] first.
    pub fn replace_uses(&mut self, from: ValueId, to: ValueId, outputs: bool) {
        for node in self.nodes.iter_mut().flatten() {
            for input in &mut node.inputs {
                if *input == Some(from) {
                    *input = Some(to);
                }
            }
        }
        if outputs {
            for it in self.outputs.iter_mut().filter(|it| **it == from) {
                *it = to;
            }
        }
    }

    /// Sets the network's inputs.
    pub fn set_inputs(&mut self, inputs: Vec<ValueId>) {
        self.inputs = inputs;
    }

    /// Sets the network's outputs.
    pub fn set_outputs(&mut self, outputs: Vec<ValueId>) {
        self.outputs = outputs;
    }

    /// Renames a value.
    ///
    /// # Errors
    /// [`GraphError::DuplicateName`].
    pub fn rename_value(&mut self, id: ValueId, name: &str) -> Result<(), GraphError> {
        if self.names.get(name).is_some_and(|&it| it != id) {
            return Err(GraphError::DuplicateName(name.to_owned()));
        }
        let old = std::mem::replace(&mut self.values[id.index()].name, name.to_owned());
        self.names.remove(&old);
        self.names.insert(name.to_owned(), id);
        Ok(())
    }

    /// Sorts the nodes so that each comes after what it reads, keeping the given order where it can.
    ///
    /// # Errors
    /// [`GraphError::Cycle`] with the names of the nodes on cycles or behind them.
    pub fn sort(&mut self) -> Result<(), GraphError> {
        let position: BTreeMap<NodeId, usize> =
            self.order.iter().copied().enumerate().map(|(i, id)| (id, i)).collect();
        let mut waits: Vec<usize> = vec![0; self.order.len()];
        let mut releases: Vec<Vec<usize>> = vec![Vec::new(); self.order.len()];
        for (at, &id) in self.order.iter().enumerate() {
            let makers: BTreeSet<_> =
                self.node(id).reads().filter_map(|it| self.producer(it)).collect();
            waits[at] = makers.len();
            for maker in makers {
                releases[position[&maker]].push(at);
            }
        }
        let mut ready: BTreeSet<usize> = (0..waits.len()).filter(|&at| waits[at] == 0).collect();
        let mut sorted = Vec::with_capacity(waits.len());
        while let Some(at) = ready.pop_first() {
            sorted.push(self.order[at]);
            for &next in &releases[at] {
                waits[next] -= 1;
                if waits[next] == 0 {
                    ready.insert(next);
                }
            }
        }
        if sorted.len() < self.order.len() {
            let stuck = self.order.iter().filter(|id| waits[position[id]] > 0);
            return Err(GraphError::Cycle(stuck.map(|&id| self.node(id).name.clone()).collect()));
        }
        self.order = sorted;
        Ok(())
    }

    /// Whether anything still reads or shows `id`, given the table of consumers.
    pub fn is_used(&self, id: ValueId, consumers: &Consumers) -> bool {
        !consumers.of(id).is_empty() || self.outputs.contains(&id)
    }

    /// A copy without dead values and removed nodes, ids renumbered in order: what a file would hold.
    #[must_use]
    pub fn compacted(&self) -> Graph {
        let mut compact = Graph {
            name: self.name.clone(),
            doc: self.doc.clone(),
            opsets: self.opsets.clone(),
            metadata: self.metadata.clone(),
            ..Default::default()
        };
        let live: BTreeSet<ValueId> = self
            .nodes()
            .flat_map(|(_, node)| {
                node.reads().chain(node.outputs.iter().flatten().copied()).collect::<Vec<_>>()
            })
            .chain(self.inputs.iter().chain(&self.outputs).copied())
            .collect();
        let mut renumber = BTreeMap::new();
        for id in live {
            let value = self.value(id);
            let new = compact
                .add_value(&value.name, value.ty.clone())
                .expect("names are unique in the source");
            compact.values[new.index()].constant.clone_from(&value.constant);
            renumber.insert(id, new);
        }
        let map =
            |list: &[Option<ValueId>]| list.iter().map(|it| it.map(|id| renumber[&id])).collect();
        compact.inputs = self.inputs.iter().map(|id| renumber[id]).collect();
        compact.outputs = self.outputs.iter().map(|id| renumber[id]).collect();
        for (_, node) in self.nodes() {
            let copy = Node {
                inputs: map(&node.inputs),
                outputs: map(&node.outputs),
                captures: node.captures.iter().map(|id| renumber[id]).collect(),
                ..node.clone()
            };
            compact.push_node(copy).expect("producers are unique in the source");
        }
        compact
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Unary};

    fn relu() -> Op {
        Op::Unary(Unary::Relu)
    }

    #[test]
    fn sorting_keeps_order_and_finds_cycles() {
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", TensorType::fixed(DType::F32, &[1])).unwrap();
        let late = graph.add_value("late", None).unwrap();
        graph.add_node("second", relu(), &[late], &["y"]).unwrap();
        let node = Node {
            name: "first".into(),
            doc: String::new(),
            op: relu(),
            inputs: vec![Some(x)],
            outputs: vec![Some(late)],
            captures: vec![],
        };
        let first = graph.push_node(node).unwrap();
        graph.sort().unwrap();
        let names: Vec<_> = graph.nodes().map(|(_, it)| it.name.as_str()).collect();
        assert_eq!(names, ["first", "second"]);
        let y = graph.find_value("y");
        graph.set_input(first, 0, y);
        assert_eq!(
            graph.sort().unwrap_err().to_string(),
            "the graph has a cycle through `first`, `second`"
        );
    }

    #[test]
    fn names_and_producers_are_unique() {
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", TensorType::fixed(DType::F32, &[1])).unwrap();
        assert!(graph.add_value("x", None).is_err());
        let y = graph.add_node("a", relu(), &[x], &["y"]).unwrap()[0];
        let again =
            Node { outputs: vec![Some(y)], ..graph.node(graph.find_node("a").unwrap()).clone() };
        assert_eq!(graph.push_node(again).unwrap_err(), GraphError::TwoProducers("y".into()));
        assert_eq!(graph.fresh_name("x"), "x_1");
    }

    #[test]
    fn compacting_drops_the_dead() {
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", TensorType::fixed(DType::F32, &[1])).unwrap();
        let y = graph.add_node("a", relu(), &[x], &["y"]).unwrap()[0];
        graph.add_node("b", relu(), &[y], &["z"]).unwrap();
        graph.remove_node(graph.find_node("b").unwrap());
        graph.set_outputs(vec![y]);
        let compact = graph.compacted();
        assert_eq!((compact.value_count(), compact.node_slots()), (2, 1));
    }
}
