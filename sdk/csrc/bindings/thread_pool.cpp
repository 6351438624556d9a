#include "thread_pool.h"

#include "arrays.h"

namespace kerf::bindings {

void bind_thread_pool(py::module_& module) {
    module.def("num_threads", &num_threads);
    module.def("set_num_threads", &set_num_threads, py::arg("count"), py::call_guard<py::gil_scoped_release>());
}

}  // namespace kerf::bindings
