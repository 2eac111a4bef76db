//! A split whose samples are the rows of arrays in an NPZ.

use std::{collections::BTreeMap, path::Path};

use crate::{
    DataError, Dtype, InputSpec, Layout, NamedArray, Result, Values,
    npz::{self, Member, place},
    rows::Rows,
};

pub(crate) struct NpzSource {
    inputs: Vec<Input>,
    labels: Option<Vec<usize>>,
    targets: Option<Input>,
    len: usize,
}

struct Input {
    name: Option<String>,
    rows: Rows,
    place: String,
    stored: Dtype,
    /// The shape of one row.
    shape: Vec<usize>,
    spec: InputSpec,
}

impl NpzSource {
    /// `arrays` maps inputs to arrays; an input without an entry is fed from the array of its name, and the only input of
    /// a network, where it has no name, from the only array that is left. The targets may be an array that feeds an input
    /// too: a network that gives its input back.
    pub(crate) fn open(
        path: &Path,
        inputs: &[(Option<String>, InputSpec)],
        arrays: &BTreeMap<String, String>,
        [labels, targets]: [Option<&str>; 2],
    ) -> Result<Self> {
        let mut members = npz::list(path)?;
        let targets = targets
            .map(|name| {
                let feeds = members.len() == 1
                    || arrays.values().any(|it| it == name)
                    || inputs.iter().any(|(it, _)| it.as_deref() == Some(name));
                let member = if feeds {
                    find(&members, path, name)?
                } else {
                    take(&mut members, path, name)?
                };
                Input::new(None, member, InputSpec::default())
            })
            .transpose()?;
        let labels =
            labels.map(|name| read_labels(&take(&mut members, path, name)?)).transpose()?;
        let mut opened = Vec::new();
        for (name, array) in pair(path, &members, inputs, arrays)? {
            let spec = inputs.iter().find(|(it, _)| it.is_none() || *it == name);
            let spec = spec.map(|(_, spec)| spec.clone()).unwrap_or_default();
            opened.push(Input::new(name, take(&mut members, path, &array)?, spec)?);
        }
        let Some((first, first_len)) = opened.first().map(|(it, len)| (it.place.clone(), *len))
        else {
            return Err(DataError::invalid(path.display(), "no arrays"));
        };
        for (input, len) in opened.iter().chain(&targets) {
            if *len != first_len {
                let message = format!("{len} rows, but {first} has {first_len}");
                return Err(DataError::invalid(&input.place, message));
            }
        }
        match &labels {
            Some(it) if it.len() != first_len => {
                let message = format!("{} labels for the {first_len} rows of {first}", it.len());
                Err(DataError::invalid(path.display(), message))
            }
            _ => Ok(Self {
                inputs: opened.into_iter().map(|(it, _)| it).collect(),
                labels,
                targets: targets.map(|it| it.0),
                len: first_len,
            }),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn labels(&self) -> Option<&[usize]> {
        self.labels.as_deref()
    }

    /// What the network shall answer to some rows.
    pub(crate) fn targets(&self, indices: &[usize]) -> Result<Option<NamedArray>> {
        self.targets.as_ref().map(|it| it.read(indices)).transpose()
    }

    /// What errors call the array that feeds an input.
    pub(crate) fn place(&self, input: usize) -> String {
        self.inputs.get(input).map(|it| it.place.clone()).unwrap_or_default()
    }

    /// Names and shapes of the inputs, without the batch.
    pub(crate) fn shapes(&self) -> Vec<(Option<String>, Vec<usize>)> {
        self.inputs.iter().map(|it| (it.name.clone(), it.shape.clone())).collect()
    }

    pub(crate) fn read(&self, indices: &[usize]) -> Result<Vec<NamedArray>> {
        self.inputs.iter().map(|it| it.read(indices)).collect()
    }
}

/// Which array feeds which input.
fn pair(
    path: &Path,
    members: &[Member],
    inputs: &[(Option<String>, InputSpec)],
    arrays: &BTreeMap<String, String>,
) -> Result<Vec<(Option<String>, String)>> {
    let invalid = |message: String| DataError::invalid(path.display(), message);
    if let [(None, _)] = inputs {
        if !arrays.is_empty() {
            if arrays.len() > 1 {
                return Err(invalid(
                    "`arrays` names several inputs; describe each in `[inputs.NAME]`".to_owned(),
                ));
            }
            return Ok(arrays
                .iter()
                .map(|(name, array)| (Some(name.clone()), array.clone()))
                .collect());
        }
        let [only] = members else {
            let message = format!(
                "{} arrays ({}) for one input; choose with `arrays = {{ INPUT = \"ARRAY\" }}`, and name the labels",
                members.len(),
                names(members)
            );
            return Err(invalid(message));
        };
        return Ok(vec![(None, only.name.clone())]);
    }
    let declared: Vec<_> = inputs.iter().filter_map(|(name, _)| name.as_ref()).collect();
    if let Some(unknown) = arrays.keys().find(|it| !declared.contains(it)) {
        return Err(invalid(format!(
            "`arrays` feeds `{unknown}`, which `[inputs]` does not describe"
        )));
    }
    let pair = |name: &String| (Some(name.clone()), arrays.get(name).unwrap_or(name).clone());
    Ok(declared.into_iter().map(pair).collect())
}

fn names(members: &[Member]) -> String {
    members.iter().map(|it| format!("`{}`", it.name)).collect::<Vec<_>>().join(", ")
}

fn take(members: &mut Vec<Member>, path: &Path, name: &str) -> Result<Member> {
    let found = find(members, path, name)?;
    members.retain(|it| it.name != name);
    Ok(found)
}

fn find(members: &[Member], path: &Path, name: &str) -> Result<Member> {
    let found = members.iter().find(|it| it.name == name);
    found.cloned().ok_or_else(|| {
        let message = format!("no array `{name}`; there are {}", names(members));
        DataError::invalid(path.display(), message)
    })
}

fn read_labels(member: &Member) -> Result<Vec<usize>> {
    let invalid =
        |message: String| DataError::invalid(place(&member.packed.path, &member.name), message);
    let (dtype, &[len]) = (member.header.dtype, &member.header.shape[..]) else {
        return Err(invalid(format!(
            "labels of shape {:?}, expected one axis",
            member.header.shape
        )));
    };
    let rows =
        Rows::new(member.packed.clone(), member.header.length, len.saturating_mul(dtype.bytes()));
    let bytes = rows.read(&[0])?.concat();
    let labels = Values::from_le_bytes(dtype, &bytes).to_i64();
    let labels =
        labels.and_then(|it| it.into_iter().map(|label| usize::try_from(label).ok()).collect());
    labels.ok_or_else(|| invalid("labels that are negative or no integers".to_owned()))
}

impl Input {
    fn new(name: Option<String>, member: Member, spec: InputSpec) -> Result<(Self, usize)> {
        let place = place(&member.packed.path, &member.name);
        let header = member.header;
        let Some((&len, shape)) = header.shape.split_first() else {
            return Err(DataError::invalid(place, "one number, expected a row a sample"));
        };
        let shape = shape.to_vec();
        // `data_bytes` has been compared with the size of the member, so that a row is no larger.
        let row = header.data_bytes().unwrap_or(0).checked_div(len).unwrap_or(0);
        let input = Self {
            name,
            rows: Rows::new(member.packed, header.length, row),
            place,
            stored: header.dtype,
            shape,
            spec,
        };
        input
            .spec
            .check_channels(input.channels().0)
            .map_err(|it| DataError::invalid(&input.place, it))?;
        Ok((input, len))
    }

    /// The number of channels, and of elements from one to the next.
    fn channels(&self) -> (usize, usize) {
        match (self.spec.layout, self.shape.split_first(), self.shape.last()) {
            (Layout::Nchw, Some((&channels, rest)), _) => (channels, rest.iter().product()),
            (Layout::Nhwc, _, Some(&channels)) => (channels, 1),
            _ => (1, 1),
        }
    }

    fn read(&self, indices: &[usize]) -> Result<NamedArray> {
        let bytes = self.rows.read(indices)?.concat();
        let mut values = Values::from_le_bytes(self.stored, &bytes);
        if self.spec.normalises() {
            let mut floats = values.to_f32();
            let (channels, stride) = self.channels();
            for (index, value) in floats.iter_mut().enumerate() {
                *value = self.spec.normalise(*value, index / stride.max(1) % channels.max(1));
            }
            values = Values::F32(floats);
        }
        let default = if values.dtype() == Dtype::F64 { Dtype::F32 } else { values.dtype() };
        let dtype = self.spec.dtype.unwrap_or(default);
        let values = values.cast(dtype).ok_or_else(|| {
            DataError::invalid(
                &self.place,
                format!("values that {} cannot hold; change `dtype`", dtype.name()),
            )
        })?;
        let shape = [&[indices.len()], &self.shape[..]].concat();
        Ok(NamedArray { name: self.name.clone(), shape, values })
    }
}
