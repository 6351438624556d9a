#include "polygons.h"

#include "arrays.h"

namespace kerf::bindings {
namespace {

py::array_t<int32_t> ring_array(const Ring& ring) {
    return py::array_t<int32_t>({static_cast<py::ssize_t>(ring.size()), py::ssize_t{2}}, reinterpret_cast<const int32_t*>(ring.data()));
}

py::list trace(const py::object& boxes, const py::object& offsets, const py::object& data) {
    const CropArrays crops(boxes, offsets, data);
    std::vector<std::vector<Part>> found;
    {
        const py::gil_scoped_release release;
        found = polygons(crops.view());
    }
    py::list instances;
    for (const std::vector<Part>& parts : found) {
        py::list part_list;
        for (const Part& part : parts) {
            py::list rings;
            for (const Ring& ring : part) rings.append(ring_array(ring));
            part_list.append(rings);
        }
        instances.append(part_list);
    }
    return instances;
}

}  // namespace

void bind_polygons(py::module_& module) {
    module.def("polygons", &trace, py::arg("boxes"), py::arg("offsets"), py::arg("data"));
}

}  // namespace kerf::bindings
