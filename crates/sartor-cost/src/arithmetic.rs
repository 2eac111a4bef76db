//! In which number types a product runs.

use std::collections::BTreeSet;

use sartor_chip::{Chip, Mode, NumberType};
use sartor_ir::{DType, Graph, Node, ValueId};

use crate::{CostError, fold::Folding, op::Product, shapes::Shapes};

/// The number types in which to analyse a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// As the graph says: in integers where weights and activations come through `DequantizeLinear`, in its own float type
    /// elsewhere; in the chip's fastest arithmetic where the chip has no other.
    #[default]
    AsIs,
    /// As if every product had these weights and these activations.
    As(
        /// Number type of the weights.
        NumberType,
        /// Number type of the activations.
        NumberType,
    ),
}

/// How the types of a product were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// The file has them and the chip too.
    File,
    /// The caller asked for them.
    Asked,
    /// The chip has others of the same widths.
    SameWidth,
    /// The runtime takes them, at another speed than the array's.
    Quirk,
    /// The chip has no arithmetic for the file's.
    Substitute,
}

/// The arithmetic of one product.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arithmetic<'c> {
    pub(crate) mode: &'c Mode,
    /// Number type in which weights are stored.
    pub(crate) weights: NumberType,
    /// What the file says.
    pub(crate) own: (NumberType, NumberType),
    /// Factor on the speed of the mode.
    pub(crate) speed: f64,
    pub(crate) origin: Origin,
}

/// The choice of arithmetic for one graph on one chip.
#[derive(Clone, Copy)]
pub(crate) struct Arithmetics<'c> {
    chip: &'c Chip,
    asked: Option<&'c Mode>,
}

impl<'c> Arithmetics<'c> {
    pub(crate) fn new(chip: &'c Chip, precision: Precision) -> Result<Self, CostError> {
        let asked = match precision {
            Precision::AsIs => None,
            Precision::As(weights, activations) => Some(asked_mode(chip, weights, activations)?),
        };
        Ok(Arithmetics { chip, asked })
    }

    /// The mode in which the chip computes with floats of a file: their own, its widest float, or its fastest.
    fn float_mode(&self, number: NumberType) -> &'c Mode {
        let own = self.asked.or_else(|| self.chip.mode(number, number));
        own.or_else(|| self.chip.float_mode()).unwrap_or_else(|| self.chip.best_mode())
    }

    /// Width in bits that an activation of this element type has on the chip.
    pub(crate) fn activation_bits(&self, dtype: DType) -> u64 {
        match number_type(dtype) {
            Some(number) if number.is_float() => {
                u64::from(self.float_mode(number).activations.bits())
            }
            _ => dtype.bits() as u64,
        }
    }

    /// The number types of the operands of a product of `node`: weights, activations.
    pub(crate) fn own(
        graph: &Graph,
        folding: &Folding,
        shapes: &Shapes,
        node: &Node,
        product: &Product,
    ) -> (NumberType, NumberType) {
        let number = |value: Option<ValueId>| {
            let value = value?;
            let dequantizer = folding.dequantizer(graph, value);
            let stored = dequantizer.and_then(|it| it.input(0)).unwrap_or(value);
            let dtype = shapes
                .dtype(stored)
                .or_else(|| graph.constant(stored).map(sartor_ir::Tensor::dtype));
            number_type(dtype?)
        };
        let packed = match product.packed {
            Some(8) => Some(NumberType::I8),
            Some(_) => Some(NumberType::I4),
            None => None,
        };
        (
            packed.or_else(|| number(node.input(product.weights))).unwrap_or(NumberType::F32),
            number(node.input(product.moving)).unwrap_or(NumberType::F32),
        )
    }

    /// The mode that multiplies exactly these types.
    ///
    /// # Errors
    /// The chip has none.
    pub(crate) fn exactly(
        &self,
        weights: NumberType,
        activations: NumberType,
    ) -> Result<Arithmetic<'c>, CostError> {
        let mode = asked_mode(self.chip, weights, activations)?;
        let own = (weights, activations);
        Ok(Arithmetic { mode, weights: mode.weights, own, speed: 1.0, origin: Origin::Asked })
    }

    /// The arithmetic for operands of these types.
    pub(crate) fn choose(&self, own: (NumberType, NumberType)) -> Arithmetic<'c> {
        let (weights, activations) = own;
        let with = |mode: &'c Mode, stored, speed, origin| Arithmetic {
            mode,
            weights: stored,
            own,
            speed,
            origin,
        };
        if let Some(mode) = self.asked {
            return with(mode, mode.weights, 1.0, Origin::Asked);
        }
        if let Some(mode) = self.chip.mode(weights, activations) {
            return with(mode, weights, 1.0, Origin::File);
        }
        if weights.is_float() || activations.is_float() {
            let number = if activations.is_float() { activations } else { weights };
            let mode = self.float_mode(number);
            return match mode.activations {
                it if it == number && !weights.is_float() => with(mode, weights, 1.0, Origin::File),
                it if it == number => with(mode, mode.weights, 1.0, Origin::File),
                _ => with(mode, mode.weights, 1.0, Origin::Substitute),
            };
        }
        let known = self.chip.quirks_of(weights, activations).find_map(|quirk| {
            let speed = quirk
                .speed_over_float
                .as_ref()
                .filter(|_| quirk.weights.is_some() && quirk.activations.is_some());
            Some((self.chip.float_mode()?, speed?.value))
        });
        if let Some((mode, speed)) = known {
            return with(mode, weights, speed, Origin::Quirk);
        }
        let widths = |it: &&Mode| {
            let same = |a: NumberType, b: NumberType| a.bits() == b.bits() && !a.is_float();
            same(it.weights, weights) && same(it.activations, activations)
        };
        match self.chip.modes().find(widths) {
            Some(mode) => with(mode, mode.weights, 1.0, Origin::SameWidth),
            None => {
                with(self.chip.best_mode(), self.chip.best_mode().weights, 1.0, Origin::Substitute)
            }
        }
    }
}

impl Arithmetic<'_> {
    /// Whether sums are integers.
    pub(crate) fn is_integer(&self) -> bool {
        !self.mode.activations.is_float()
    }

    /// What was assumed, for a person.
    pub(crate) fn describe(&self) -> String {
        let pair = |weights: NumberType, activations: NumberType| {
            if weights == activations {
                weights.to_string()
            } else {
                format!("{weights} weights with {activations} activations")
            }
        };
        let own = pair(self.own.0, self.own.1);
        let used = pair(self.mode.weights, self.mode.activations);
        match self.origin {
            Origin::File => format!("{own}, the file's own"),
            Origin::Asked => format!("{used}, as asked"),
            Origin::SameWidth => format!("{used}, for the file's {own} of the same widths"),
            Origin::Quirk => format!(
                "{own}, the file's own, which the runtime computes at {} of the speed of {used}",
                self.speed
            ),
            Origin::Substitute => format!("{used}, because the chip has no {own} arithmetic"),
        }
    }
}

/// The chip's word for an element type; types that no chip multiplies have none.
fn number_type(dtype: DType) -> Option<NumberType> {
    match dtype {
        DType::F32 | DType::F64 => Some(NumberType::F32),
        DType::F16 => Some(NumberType::F16),
        DType::BF16 => Some(NumberType::Bf16),
        DType::I16 | DType::U16 => Some(NumberType::I16),
        DType::I8 => Some(NumberType::I8),
        DType::U8 => Some(NumberType::U8),
        DType::I4 | DType::U4 => Some(NumberType::I4),
        DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0
        | DType::F4E2M1
        | DType::I2
        | DType::U2
        | DType::I32
        | DType::U32
        | DType::I64
        | DType::U64
        | DType::Bool
        | DType::Str => None,
    }
}

fn asked_mode(
    chip: &Chip,
    weights: NumberType,
    activations: NumberType,
) -> Result<&Mode, CostError> {
    chip.mode(weights, activations).ok_or_else(|| CostError::NoMode {
        chip: chip.id.clone(),
        weights,
        activations,
        known: modes(chip),
    })
}

fn modes(chip: &Chip) -> String {
    let modes = chip.modes().map(|it| format!("{} × {}", it.weights, it.activations));
    // Two engines may multiply the same types.
    let distinct: BTreeSet<String> = modes.collect();
    distinct.into_iter().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use NumberType::{F16, F32, I4, I8, I16, U8};
    use sartor_chip::find;

    use super::*;

    #[test]
    fn the_chip_decides_what_becomes_of_the_files_types() {
        for (id, own, mode, stored, origin) in [
            ("intel-xeon-icx", (F32, F32), (F32, F32), F32, Origin::File),
            ("intel-xeon-icx", (I8, U8), (I8, U8), I8, Origin::File),
            ("intel-xeon-icx", (I8, I8), (F32, F32), I8, Origin::Quirk),
            ("intel-xeon-icx", (I8, F32), (F32, F32), I8, Origin::File),
            ("intel-xeon-icx", (F16, F16), (F32, F32), F32, Origin::Substitute),
            ("nvidia-a100", (I8, U8), (I8, I8), I8, Origin::SameWidth),
            ("nvidia-a100", (F16, F16), (F16, F16), F16, Origin::File),
            ("arm-ethos-u55-128", (F32, F32), (I8, I8), I8, Origin::Substitute),
            ("arm-ethos-u55-128", (I8, I16), (I8, I16), I8, Origin::File),
            ("google-coral-edgetpu", (I4, I8), (I8, I8), I8, Origin::Substitute),
            ("arm-cortex-m7", (I4, I8), (I4, I8), I4, Origin::File),
        ] {
            let chip = find(id).unwrap();
            let found = Arithmetics::new(&chip, Precision::AsIs).unwrap().choose(own);
            let used = (found.mode.weights, found.mode.activations);
            assert_eq!((used, found.weights, found.origin), (mode, stored, origin), "{id} {own:?}");
        }
    }

    #[test]
    fn asking_for_what_the_chip_lacks_names_what_it_has() {
        let chip = find("google-coral-edgetpu").unwrap();
        let error = Arithmetics::new(&chip, Precision::As(F32, F32)).err().unwrap();
        assert!(error.to_string().ends_with("it has i8 × i8"), "{error}");
    }
}
