//! Matrix products (<https://onnx.ai/onnx/operators/onnx__Gemm.html>,
//! <https://onnx.ai/onnx/operators/onnx__MatMul.html>).

use super::{rank_of, required, shape_of, unless};
use crate::{
    Attr, AttrError, Attrs, AxisLink, Dim, Fact, Port, TensorType,
    shape::{broadcast, list},
};

/// Attributes of `Gemm`: `alpha A' B' + beta C`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gemm {
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of the addend.
    pub beta: f32,
    /// Whether `A` is stored transposed.
    pub trans_a: bool,
    /// Whether `B` is stored transposed, `[n, k]`.
    pub trans_b: bool,
}

impl Gemm {
    pub(super) fn build(attrs: &mut Attrs) -> Result<Self, AttrError> {
        Ok(Gemm {
            alpha: attrs.float("alpha", 1.0)?,
            beta: attrs.float("beta", 1.0)?,
            trans_a: attrs.flag("transA", false)?,
            trans_b: attrs.flag("transB", false)?,
        })
    }

    pub(super) fn attributes(&self) -> Attrs {
        let mut attrs = Attrs::new();
        unless(&mut attrs, "alpha", self.alpha, 1.0, Attr::Float);
        unless(&mut attrs, "beta", self.beta, 1.0, Attr::Float);
        unless(&mut attrs, "transA", self.trans_a, false, |it| Attr::Int(i64::from(it)));
        unless(&mut attrs, "transB", self.trans_b, false, |it| Attr::Int(i64::from(it)));
        attrs
    }

    pub(super) fn infer(&self, inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
        let (Some(a), Some(b)) = (shape_of(inputs, 0), shape_of(inputs, 1)) else {
            return Ok(None);
        };
        if a.len() != 2 || b.len() != 2 {
            return Err(format!("operands {} and {} must be matrices", list(a), list(b)));
        }
        let (m, ka) = if self.trans_a { (&a[1], &a[0]) } else { (&a[0], &a[1]) };
        let (kb, n) = if self.trans_b { (&b[1], &b[0]) } else { (&b[0], &b[1]) };
        if !ka.compatible(kb) {
            return Err(format!(
                "operands {} and {} disagree on the reduced extent, {ka} and {kb}",
                list(a),
                list(b)
            ));
        }
        let shape = vec![m.clone(), n.clone()];
        if let Some(c) = shape_of(inputs, 2) {
            let joint = broadcast(&shape, c)?;
            if joint.len() != 2 || !joint.iter().zip(&shape).all(|(j, s)| j.compatible(s)) {
                return Err(format!("addend {} does not broadcast to {}", list(c), list(&shape)));
            }
        }
        Ok(Some(Fact::of(TensorType::new(inputs[0].expect("shape_of found it").ty.dtype, shape))))
    }

    pub(super) fn axes(&self, inputs: &[Option<&Fact>]) -> Vec<AxisLink> {
        let (m, ka) = if self.trans_a { (1, 0) } else { (0, 1) };
        let (kb, n) = if self.trans_b { (1, 0) } else { (0, 1) };
        let out_n = (Port::Output(0), 1);
        let mut links = vec![
            AxisLink::same((Port::Input(0), m), (Port::Output(0), 0)),
            AxisLink::same((Port::Input(0), ka), (Port::Input(1), kb)),
            AxisLink::same((Port::Input(1), n), out_n),
        ];
        if let (Some(c), Some(b)) = (shape_of(inputs, 2), shape_of(inputs, 1))
            && let Some(last) = c.len().checked_sub(1)
            && c[last] == b[n]
            && c[last] != Dim::Known(1)
        {
            links.push(AxisLink::same((Port::Input(2), last), out_n));
        }
        links
    }
}

pub(super) fn infer_matmul(inputs: &[Option<&Fact>]) -> Result<Option<Fact>, String> {
    let (Some(a), Some(b)) = (shape_of(inputs, 0), shape_of(inputs, 1)) else { return Ok(None) };
    if a.is_empty() || b.is_empty() {
        return Err(format!("operands {} and {} must not be scalars", list(a), list(b)));
    }
    let lift = |it: &[Dim], front: bool| match (it.len(), front) {
        (1, true) => vec![Dim::Known(1), it[0].clone()],
        (1, false) => vec![it[0].clone(), Dim::Known(1)],
        _ => it.to_vec(),
    };
    let (wide_a, wide_b) = (lift(a, true), lift(b, false));
    let (lead_a, mat_a) = wide_a.split_at(wide_a.len() - 2);
    let (lead_b, mat_b) = wide_b.split_at(wide_b.len() - 2);
    if !mat_a[1].compatible(&mat_b[0]) {
        return Err(format!(
            "operands {} and {} disagree on the reduced extent, {} and {}",
            list(a),
            list(b),
            mat_a[1],
            mat_b[0]
        ));
    }
    let mut shape = broadcast(lead_a, lead_b)?;
    if a.len() > 1 {
        shape.push(mat_a[0].clone());
    }
    if b.len() > 1 {
        shape.push(mat_b[1].clone());
    }
    Ok(required(inputs, 0).map(|it| Fact::of(TensorType::new(it.ty.dtype, shape))))
}

/// The reduced axes go together; a plain matrix on the right passes its columns on.
pub(super) fn axes_matmul(inputs: &[Option<&Fact>]) -> Vec<AxisLink> {
    let (Some(ra), Some(rb)) = (rank_of(inputs, 0), rank_of(inputs, 1)) else { return Vec::new() };
    if ra < 2 || rb < 2 {
        return Vec::new();
    }
    let out = ra.max(rb);
    let mut links = vec![
        AxisLink::same((Port::Input(0), ra - 1), (Port::Input(1), rb - 2)),
        AxisLink::same((Port::Input(1), rb - 1), (Port::Output(0), out - 1)),
        AxisLink::same((Port::Input(0), ra - 2), (Port::Output(0), out - 2)),
    ];
    for axis in 2..ra {
        let at = ra - 1 - axis;
        if rb <= axis || super::extent(inputs, 1, rb - 1 - axis) == Some(1) {
            links.push(AxisLink::same((Port::Input(0), at), (Port::Output(0), out - 1 - axis)));
        }
    }
    links
}
