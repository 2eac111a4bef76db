//! Number formats that somebody asks for, where a chip has them.

use sartor_chip::{Chip, Granularity, NumberType, Scheme};
use sartor_compress::{
    ActivationFormat, ActivationType, QuantizeStatic, ScaleKind, Storage, WeightFormat, WeightType,
};

use crate::scheme::scales_of;

/// What is asked for; whatever is `None` is the chip's to choose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedScheme {
    /// The integers of weights.
    pub weights: Option<WeightType>,
    /// How 4-bit weights are stored.
    pub storage: Option<Storage>,
    /// The type of activations.
    pub activations: Option<ActivationType>,
    /// Weights that share a scale, 0 for no blocks.
    pub block: Option<usize>,
    /// Which numbers scales may be.
    pub scales: Option<ScaleKind>,
    /// One scale for each weight tensor.
    pub per_tensor: bool,
    /// Activations with zero in the middle.
    pub symmetric: bool,
}

impl WantedScheme {
    /// Whether everything is left to the chip.
    pub fn is_empty(&self) -> bool {
        *self == WantedScheme::default()
    }
}

/// The first scheme of the chip for convolutions or matrix products that does what is asked for, as a configuration
/// without a choice of ranges.
///
/// # Errors
/// The sentence that says what the chip has instead.
pub fn wanted_scheme(chip: &Chip, wanted: &WantedScheme) -> Result<QuantizeStatic, String> {
    let chips = scales_of(chip);
    if chips == ScaleKind::PowerOfTwo && wanted.scales == Some(ScaleKind::Float) {
        return Err(format!("{} applies scales by shifts: they must be powers of two", chip.id));
    }
    let scales = wanted.scales.unwrap_or(chips);
    let schemes = || {
        let all = chip.core.arithmetic.schemes.iter();
        all.filter(|it| ["Conv", "Gemm", "MatMul"].iter().any(|op| it.covers(op)))
    };
    schemes().find_map(|it| configuration(it, wanted, scales)).ok_or_else(|| {
        let mut known: Vec<String> = schemes().map(in_words).collect();
        known.dedup();
        let known = if known.is_empty() { "none".to_owned() } else { known.join("; ") };
        format!("{} cannot execute {}; its schemes: {known}", chip.id, asked(wanted))
    })
}

/// A scheme as it is asked for, if it can do that.
fn configuration(
    scheme: &Scheme,
    wanted: &WantedScheme,
    scales: ScaleKind,
) -> Option<QuantizeStatic> {
    let (dtype, storage) = weights(scheme, wanted)?;
    let unsigned = matches!(dtype, WeightType::Uint8 | WeightType::Uint4);
    let own = activations(scheme.activations)?;
    let activations = wanted.activations.unwrap_or(own);
    let affine = unsigned && scheme.weights_symmetric;
    if affine || activations != own {
        return None;
    }
    let has = |it: Granularity| scheme.granularity.contains(&it);
    let fits = |block: u64| usize::try_from(block).ok();
    let block = match wanted.block {
        Some(0) => 0,
        Some(block) => scheme.blocks.iter().find_map(|&it| fits(it).filter(|it| *it == block))?,
        None if has(Granularity::Channel) || has(Granularity::Tensor) => 0,
        None => scheme.blocks.first().copied().and_then(fits)?,
    };
    let per_channel = has(Granularity::Channel) && !wanted.per_tensor;
    if block == 0 && !per_channel && !has(Granularity::Tensor) {
        return None;
    }
    Some(QuantizeStatic {
        weights: WeightFormat { dtype, storage, block, per_channel },
        activations: ActivationFormat {
            dtype: activations,
            symmetric: scheme.activations_symmetric || wanted.symmetric,
        },
        scales,
        ..QuantizeStatic::default()
    })
}

/// The weights that a scheme's weight type holds.
fn weights(scheme: &Scheme, wanted: &WantedScheme) -> Option<(WeightType, Storage)> {
    use WeightType::{Binary, Int2, Int4, Int7, Int8, Int16, Ternary, Uint4, Uint8};
    let storage = wanted.storage.unwrap_or_default();
    let own = match scheme.weights {
        NumberType::I16 => Int16,
        NumberType::I8 => Int8,
        NumberType::U8 => Uint8,
        NumberType::I4 => Int4,
        NumberType::U4 => Uint4,
        NumberType::I2 => Int2,
        _ => return None,
    };
    let dtype = wanted.weights.unwrap_or(own);
    let held = match (dtype, storage) {
        (Int7 | Binary | Ternary | Int2, _) | (Int4, Storage::Bytes) => Int8,
        (it, _) => it,
    };
    let narrow = scheme.weights == NumberType::I2 && matches!(dtype, Int2 | Ternary | Binary);
    (held == own || narrow).then_some((dtype, storage))
}

fn activations(number: NumberType) -> Option<ActivationType> {
    Some(match number {
        NumberType::U8 => ActivationType::Uint8,
        NumberType::I8 => ActivationType::Int8,
        NumberType::I16 => ActivationType::Int16,
        NumberType::U4 => ActivationType::Uint4,
        NumberType::I4 => ActivationType::Int4,
        NumberType::F32 | NumberType::F16 | NumberType::Bf16 => ActivationType::Float32,
        _ => return None,
    })
}

/// A scheme in an error.
fn in_words(scheme: &Scheme) -> String {
    let granularity: Vec<String> = scheme
        .granularity
        .iter()
        .map(|it| match it {
            Granularity::Block => {
                let blocks: Vec<String> = scheme.blocks.iter().map(u64::to_string).collect();
                format!("block of {}", blocks.join(", "))
            }
            it => it.to_string(),
        })
        .collect();
    let granularity = granularity.join(" or ");
    format!("{} weights per {granularity} × {} activations", scheme.weights, scheme.activations)
}

fn asked(wanted: &WantedScheme) -> String {
    let weights = wanted.weights.map_or("any", WeightType::name);
    let stored = match (wanted.weights, wanted.storage) {
        (Some(WeightType::Int4 | WeightType::Uint4), Some(Storage::Bytes)) => " in bytes",
        (Some(WeightType::Int4 | WeightType::Uint4), _) => ", packed,",
        _ => "",
    };
    let sharing = match (wanted.block, wanted.per_tensor) {
        (Some(block), _) if block > 0 => format!(" in blocks of {block}"),
        (_, true) => " per tensor".to_owned(),
        _ => String::new(),
    };
    let activations = wanted.activations.map_or("any", ActivationType::name);
    format!("{weights} weights{stored}{sharing} with {activations} activations")
}

#[cfg(test)]
mod tests {
    use sartor_chip::find;

    use super::*;

    fn asked_for(weights: WeightType) -> WantedScheme {
        WantedScheme { weights: Some(weights), ..WantedScheme::default() }
    }

    #[test]
    fn chips_give_what_they_have() {
        let m7 = find("arm-cortex-m7").unwrap();
        for (wanted, expected) in [
            (WantedScheme::default(), (WeightType::Int8, ActivationType::Int8)),
            (asked_for(WeightType::Int4), (WeightType::Int4, ActivationType::Int8)),
            (asked_for(WeightType::Ternary), (WeightType::Ternary, ActivationType::Int8)),
            (
                WantedScheme {
                    activations: Some(ActivationType::Int16),
                    ..WantedScheme::default()
                },
                (WeightType::Int8, ActivationType::Int16),
            ),
        ] {
            let found = wanted_scheme(&m7, &wanted).unwrap();
            assert_eq!((found.weights.dtype, found.activations.dtype), expected, "{wanted:?}");
            assert!(found.weights.per_channel);
        }
    }

    #[test]
    fn what_a_chip_cannot_execute_is_refused_with_its_schemes() {
        let m7 = find("arm-cortex-m7").unwrap();
        for wanted in [
            asked_for(WeightType::Uint8),
            WantedScheme {
                activations: Some(ActivationType::Uint8),
                ..asked_for(WeightType::Int4)
            },
            WantedScheme { block: Some(32), ..asked_for(WeightType::Int4) },
            WantedScheme { per_tensor: true, ..asked_for(WeightType::Int4) },
        ] {
            let error = wanted_scheme(&m7, &wanted).unwrap_err();
            assert!(error.contains("i4 weights per channel × i8 activations"), "{error}");
        }
        let error =
            wanted_scheme(&find("arm-ethos-u55-128").unwrap(), &asked_for(WeightType::Int4));
        assert!(error.unwrap_err().contains("int4 weights, packed, with any activations"));
    }
}
