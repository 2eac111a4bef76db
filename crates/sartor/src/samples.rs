//! Samples of a data set as the network's inputs.

use sartor_compress::{CompressError, Samples};
use sartor_data::{Augmentation, Batch, DataError, DataSet, NamedArray, Values};
use sartor_engine::{Array, Data};
use sartor_ir::{
    DType::{self, I16, U16, U32, U64},
    Dim, Graph,
};

use crate::{Error, Interrupt};

/// A data set bound to the inputs of a network.
#[derive(Clone, Debug)]
pub struct BoundSamples {
    set: DataSet,
    /// For each input of the network, its position among the arrays of a batch.
    order: Vec<usize>,
    /// For each input of the network, its declared element type.
    dtypes: Vec<DType>,
    interrupt: Interrupt,
}

impl BoundSamples {
    /// Binds `set` to the inputs of `graph` by name (or, where there is one of each, by being the only
    /// one), and checks the shapes on the first sample.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an input without data and an empty set; [`Error::Data`] for a shape that
    /// does not fit.
    pub fn bind(graph: &Graph, set: &DataSet, interrupt: &Interrupt) -> Result<Self, Error> {
        if set.is_empty() {
            return Err(Error::Invalid("the data split has no samples".to_owned()));
        }
        let names: Vec<Option<String>> = set.shapes().into_iter().map(|it| it.0).collect();
        let mut order = Vec::with_capacity(graph.inputs().len());
        let mut dtypes = Vec::with_capacity(graph.inputs().len());
        for &id in graph.inputs() {
            let value = graph.value(id);
            let only = names.len() == 1 && graph.inputs().len() == 1;
            let at = names
                .iter()
                .position(|it| it.as_deref() == Some(&value.name))
                .or(only.then_some(0));
            let Some(at) = at else {
                let given: Vec<_> = names.iter().flatten().map(|it| format!("`{it}`")).collect();
                let given = if given.is_empty() {
                    "one unnamed input".to_owned()
                } else {
                    given.join(", ")
                };
                return Err(Error::Invalid(format!(
                    "the network's input `{}` has no data: the data spec gives {given}; add `[inputs.\"{}\"]`",
                    value.name, value.name
                )));
            };
            if let Some(shape) = value.ty.as_ref().and_then(|it| it.shape.as_ref()) {
                let mut shape: Vec<_> = shape.iter().map(Dim::known).collect();
                if let Some(batch) = shape.first_mut() {
                    *batch = None;
                }
                let name = names[at].clone().unwrap_or_else(|| value.name.clone());
                set.check_input(&name, &shape)?;
            }
            order.push(at);
            dtypes.push(value.ty.as_ref().map_or(DType::F32, |it| it.dtype));
        }
        Ok(BoundSamples { set: set.clone(), order, dtypes, interrupt: interrupt.clone() })
    }

    /// The first `count` samples, or all if there are fewer.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        let picks: Vec<usize> = (0..self.set.len().min(count)).collect();
        BoundSamples { set: self.set.subset(&picks), ..self.clone() }
    }

    /// The set behind it.
    pub fn set(&self) -> &DataSet {
        &self.set
    }

    /// Batches of at most `batch` samples as inputs of the network, with their labels.
    pub fn batches(
        &self,
        batch: usize,
    ) -> impl Iterator<Item = Result<(Vec<Array>, Option<Vec<usize>>), Error>> {
        self.set.batches(batch).map(|it| {
            self.interrupt.check()?;
            let mut batch = it?;
            let labels = batch.labels.take();
            Ok((self.inputs(batch), labels))
        })
    }

    /// A batch as inputs of the network.
    fn inputs(&self, batch: Batch) -> Vec<Array> {
        let mut inputs = batch.inputs;
        let ports = self.order.iter().zip(&self.dtypes);
        ports.map(|(&at, &dtype)| fitted(take(&mut inputs[at]), dtype)).collect()
    }
}

fn take(array: &mut NamedArray) -> Array {
    let shape = array.shape.clone();
    let data = match std::mem::replace(&mut array.values, Values::F32(Vec::new())) {
        Values::F32(it) => Data::F32(it),
        Values::F64(it) => Data::F64(it),
        Values::I64(it) => Data::I64(it),
        Values::I32(it) => Data::I32(it),
        Values::I16(it) => Data::I16(it),
        Values::I8(it) => Data::I8(it),
        Values::U64(it) => Data::U64(it),
        Values::U32(it) => Data::U32(it),
        Values::U16(it) => Data::U16(it),
        Values::U8(it) => Data::U8(it),
        Values::Bool(it) => Data::Bool(it),
    };
    Array { shape, data }
}

/// An array of a file as an array at run time.
pub fn to_array(mut array: NamedArray) -> Array {
    take(&mut array)
}

/// An array for a value of the declared type: floats are rounded to it, and integers converted for the
/// types that few files hold; anything else stays as it is, for the engine to refuse.
pub fn fitted(array: Array, declared: DType) -> Array {
    let (from, rare) = (array.dtype(), matches!(declared, I16 | U16 | U32 | U64));
    let fits =
        from.is_float() && declared.is_float() || rare && from != DType::Bool && !from.is_float();
    if from == declared || !fits {
        return array;
    }
    array.cast(declared).unwrap_or(array)
}

/// An array at run time as an array of a file.
pub fn from_array(name: &str, array: &Array) -> NamedArray {
    let values = match &array.data {
        Data::F32(it) => Values::F32(it.clone()),
        Data::F64(it) => Values::F64(it.clone()),
        Data::I64(it) => Values::I64(it.clone()),
        Data::I32(it) => Values::I32(it.clone()),
        Data::I16(it) => Values::I16(it.clone()),
        Data::I8(it) => Values::I8(it.clone()),
        Data::U64(it) => Values::U64(it.clone()),
        Data::U32(it) => Values::U32(it.clone()),
        Data::U16(it) => Values::U16(it.clone()),
        Data::U8(it) => Values::U8(it.clone()),
        Data::Bool(it) => Values::Bool(it.clone()),
    };
    NamedArray { name: Some(name.to_owned()), shape: array.shape.clone(), values }
}

impl sartor_train::Samples for BoundSamples {
    fn len(&self) -> usize {
        self.set.len()
    }

    fn read(
        &self,
        indices: &[usize],
        augment: Option<&Augmentation>,
    ) -> Result<sartor_train::Batch, DataError> {
        let mut batch = match augment {
            Some(it) => self.set.read_augmented(indices, it)?,
            None => self.set.read(indices)?,
        };
        let labels = batch.labels.take();
        let targets = batch.targets.take().map(|it| {
            let shape = it.shape.clone();
            Array::f32(&shape, it.values.to_f32())
        });
        Ok(sartor_train::Batch { inputs: self.inputs(batch), labels, targets })
    }
}

impl Samples for BoundSamples {
    fn len(&self) -> usize {
        self.set.len()
    }

    fn interrupted(&self) -> bool {
        self.interrupt.is_raised()
    }

    fn for_each(
        &self,
        batch: usize,
        visit: &mut dyn FnMut(&[Array]) -> Result<(), CompressError>,
    ) -> Result<(), CompressError> {
        for item in self.batches(batch) {
            let (arrays, _) = item.map_err(|it| CompressError::Samples(it.to_string()))?;
            visit(&arrays)?;
        }
        Ok(())
    }
}
