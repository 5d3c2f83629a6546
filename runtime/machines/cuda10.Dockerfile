# The reference runtime, tensorflow-gpu 1.15 with CUDA 10.0 and cuDNN 7: for GPUs up to compute
# capability 7.5. README.md in this folder says how to build and start it.
FROM nvidia/cuda:10.0-cudnn7-runtime-ubuntu18.04

# NVIDIA's package lists in the image are signed with a key that was withdrawn, and none of
# them is needed. Python 3.7 comes from Ubuntu; requirements/setup.sh upgrades its pip.
RUN rm -f /etc/apt/sources.list.d/cuda.list /etc/apt/sources.list.d/nvidia-ml.list \
    && apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates python3.7 python3.7-venv python3-distutils \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /bic
COPY . .
# No GPU is visible while an image is built, so name the runtime.
RUN RUNTIME=gpu requirements/setup.sh

ENV PATH=/bic/.venv/bin:$PATH
CMD ["python", "imagenet_main.py", "--self_check"]
