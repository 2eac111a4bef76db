//! Operators that travel as their file has them, by name.

use crate::{Attr, AttrError, Attrs, DType};

/// An operator outside the closed set, with its attributes as the file had them. The [`crate::catalog`]
/// may know its rules, and the engine its values; of others nobody here knows anything, and they are
/// carried through untouched.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// Operator set domain; empty for ONNX's own.
    pub domain: String,
    /// Name of the operator.
    pub name: String,
    /// Version of the domain's operator set that gives name and attributes their meaning.
    pub version: i64,
    /// Attributes, subgraphs in the file's own encoding.
    pub attributes: Attrs,
}

impl Named {
    /// The operator as messages call it: its name, with the domain where it is not ONNX's own.
    pub fn full_name(&self) -> String {
        if self.domain.is_empty() {
            self.name.clone()
        } else {
            format!("{}.{}", self.domain, self.name)
        }
    }

    /// The integer attribute `name`, or `default` where absent.
    ///
    /// # Errors
    /// An attribute of another kind.
    pub fn int(&self, name: &str, default: i64) -> Result<i64, String> {
        match self.attributes.get(name) {
            None => Ok(default),
            Some(Attr::Int(it)) => Ok(*it),
            Some(_) => Err(AttrError::new(name, "expected an integer").to_string()),
        }
    }

    /// The flag `name` (an integer, zero or not), or `default` where absent.
    ///
    /// # Errors
    /// As [`Named::int`].
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, String> {
        Ok(self.int(name, i64::from(default))? != 0)
    }

    /// The float attribute `name`, or `default` where absent.
    ///
    /// # Errors
    /// As [`Named::int`].
    pub fn float(&self, name: &str, default: f32) -> Result<f32, String> {
        match self.attributes.get(name) {
            None => Ok(default),
            Some(Attr::Float(it)) => Ok(*it),
            Some(_) => Err(AttrError::new(name, "expected a float").to_string()),
        }
    }

    /// The text attribute `name`, or `default` where absent.
    ///
    /// # Errors
    /// As [`Named::int`].
    pub fn text<'a>(&'a self, name: &str, default: &'a str) -> Result<&'a str, String> {
        match self.attributes.get(name) {
            None => Ok(default),
            Some(Attr::Str(it)) => Ok(it),
            Some(_) => Err(AttrError::new(name, "expected text").to_string()),
        }
    }

    /// The integers of attribute `name`, if given.
    ///
    /// # Errors
    /// As [`Named::int`].
    pub fn ints(&self, name: &str) -> Result<Option<&[i64]>, String> {
        match self.attributes.get(name) {
            None => Ok(None),
            Some(Attr::Ints(it)) => Ok(Some(it)),
            Some(_) => Err(AttrError::new(name, "expected a list of integers").to_string()),
        }
    }

    /// The floats of attribute `name`, if given.
    ///
    /// # Errors
    /// As [`Named::int`].
    pub fn floats(&self, name: &str) -> Result<Option<&[f32]>, String> {
        match self.attributes.get(name) {
            None => Ok(None),
            Some(Attr::Floats(it)) => Ok(Some(it)),
            Some(_) => Err(AttrError::new(name, "expected a list of floats").to_string()),
        }
    }

    /// The texts of attribute `name`, if given.
    ///
    /// # Errors
    /// As [`Named::int`].
    pub fn texts(&self, name: &str) -> Result<Option<&[String]>, String> {
        match self.attributes.get(name) {
            None => Ok(None),
            Some(Attr::Strs(it)) => Ok(Some(it)),
            Some(_) => Err(AttrError::new(name, "expected a list of texts").to_string()),
        }
    }

    /// The element type of attribute `name`, which holds ONNX's number of it; `None` where absent.
    ///
    /// # Errors
    /// As [`Named::int`], and a number of no type.
    pub fn dtype(&self, name: &str) -> Result<Option<DType>, String> {
        if self.attributes.get(name).is_none() {
            return Ok(None);
        }
        let code = self.int(name, 0)?;
        let dtype = DType::from_code(code);
        dtype.map(Some).ok_or_else(|| format!("`{name}` is {code}, the number of no known type"))
    }
}
