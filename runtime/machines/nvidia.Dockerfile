# NVIDIA's own TensorFlow 1.15.5, with the image's Python 3.8 and CUDA 12.1: for GPUs from Pascal to
# Hopper (GTX 10 to H100). README.md in this folder says how to build and start it.
FROM nvcr.io/nvidia/tensorflow:23.03-tf1-py3

WORKDIR /bic
COPY . .
RUN RUNTIME=system requirements/setup.sh

ENV PATH=/bic/.venv/bin:$PATH
CMD ["python", "imagenet_main.py", "--self_check"]
