"""Triton's Python backend runs this: a model of ours in ONNX Runtime. The parameter "file" of its configuration names it."""

import json

import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args):
        path = json.loads(args["model_config"])["parameters"]["file"]["string_value"]
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        images = triton.get_input_tensor_by_name(request, "images").as_numpy()
        (found,) = self.session.run(None, {"images": images})
        return triton.InferenceResponse([triton.Tensor("output0", found)])
