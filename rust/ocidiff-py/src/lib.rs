//! The binding `ocidiff._core`: it converts, runs, and converts back. What a layer means is decided in `ocidiff-core`.

mod apply;
mod changes;
mod diff;
mod error;
mod index;
mod options;
mod run;
mod squash;
mod summaries;
mod trees;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    #[pymodule_export]
    use super::apply::{apply_layer, measure_layer, write_tar};
    #[pymodule_export]
    use super::changes::{Change, ChangeStream};
    #[pymodule_export]
    use super::diff::{write_layer, write_layers};
    #[pymodule_export]
    use super::index::{write_index, write_index_of_layers};
    #[pymodule_export]
    use super::squash::Squash;
    #[pymodule_export]
    use super::summaries::{
        ApplySummary, IndexSummary, LayerMeasure, LayerSummary, SplitSummary, SquashSummary, TarSummary,
    };

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("ENCODERS", ocidiff_core::compress::segments::encoders())?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
