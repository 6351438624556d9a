// sdk._core: the native operators. Private; the public, documented calls are in sdk/ops.
#include "arrays.h"

namespace py = pybind11;

namespace {

// The one place where the core's errors become those of sdk/errors.py.
void translate_errors() {
    PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<std::pair<py::object, py::object>> types;
    types.call_once_and_store_result([] {
        const py::module_ errors = py::module_::import("sdk.errors");
        return std::pair<py::object, py::object>(errors.attr("InputError"), errors.attr("KerfError"));
    });
    py::register_local_exception_translator([](std::exception_ptr pointer) {
        try {
            if (pointer) std::rethrow_exception(pointer);
        } catch (const kerf::InputError& error) {
            py::set_error(types.get_stored().first, error.what());
        } catch (const kerf::Error& error) {
            py::set_error(types.get_stored().second, error.what());
        }
    });
}

}  // namespace

PYBIND11_MODULE(_core, module) {
    module.doc() = "Native operators of Kerf; call them through sdk.ops.";
    translate_errors();
    kerf::bindings::bind_thread_pool(module);
    kerf::bindings::bind_boundary_band(module);
    kerf::bindings::bind_crops(module);
    kerf::bindings::bind_decode(module);
    kerf::bindings::bind_nms(module);
    kerf::bindings::bind_paste(module);
    kerf::bindings::bind_patches(module);
    kerf::bindings::bind_polygons(module);
    kerf::bindings::bind_preprocess(module);
    kerf::bindings::bind_proposals(module);
    kerf::bindings::bind_rle(module);
    kerf::bindings::bind_roi_align(module);
    kerf::bindings::bind_select(module);
}
