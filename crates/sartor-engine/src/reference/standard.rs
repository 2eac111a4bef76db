//! Normalization of values to mean 0 and variance 1 within runs that lie together in memory: by layer (Ba,
//! Kiros, Hinton 2016), instance (Ulyanov et al. 2016), group (Wu & He 2018), or without mean (Zhang &
//! Sennrich 2019); then `scale` and `shift`.

use sartor_ir::{Named, normalize_axis};

use super::layer_norm::Centre;

/// What a normalizing operator does to an input of a known shape.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standard {
    /// Elements that are normalized together.
    pub(crate) run: usize,
    /// What is subtracted.
    pub(crate) centre: Centre,
    /// Added to the variance.
    pub(crate) epsilon: f64,
    /// The input's shape as scale and shift see it.
    pub(crate) seen: Vec<usize>,
    /// Whether scale and shift have one number for each row of the last axis in `seen`.
    by_row: bool,
}

impl Standard {
    /// What `op` does to an input of `shape`.
    ///
    /// # Errors
    /// An operator of another family, or attributes that do not fit.
    pub(crate) fn of(op: &Named, shape: &[usize]) -> Result<Self, String> {
        let epsilon = f64::from(op.float("epsilon", 1e-5)?);
        let centre = match op.name.as_str() {
            "RMSNormalization" => Centre::Zero,
            _ => Centre::Mean,
        };
        if matches!(op.name.as_str(), "LayerNormalization" | "RMSNormalization") {
            let axis = normalize_axis(op.int("axis", -1)?, shape.len())?;
            let run = shape[axis..].iter().product();
            return Ok(Standard { run, centre, epsilon, seen: shape.to_vec(), by_row: false });
        }
        if shape.len() < 2 {
            return Err(format!("input {shape:?} has no channels"));
        }
        let (batch, channels) = (shape[0], shape[1]);
        let plane: usize = shape[2..].iter().product();
        let groups = match op.name.as_str() {
            "InstanceNormalization" => channels,
            "GroupNormalization" => usize::try_from(op.int("num_groups", 0)?).unwrap_or(0),
            other => return Err(format!("`{other}` does not normalize runs")),
        };
        let Some(members) = channels.checked_div(groups).filter(|it| it * groups == channels)
        else {
            return Err(format!("{channels} channels do not divide into {groups} groups"));
        };
        // Opset 18 scales groups, later ones scale channels.
        let by_group = op.name == "GroupNormalization" && op.version < 21;
        let seen = if by_group {
            vec![batch, groups, members * plane]
        } else {
            vec![batch, channels, plane]
        };
        Ok(Standard { run: members * plane, centre, epsilon, seen, by_row: true })
    }

    /// The shape of a parameter as it broadcasts to `seen`.
    pub(crate) fn parameter(&self, shape: &[usize]) -> Vec<usize> {
        if self.by_row { [shape, &[1]].concat() } else { shape.to_vec() }
    }
}
