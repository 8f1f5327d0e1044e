# synfer on processors alone:    docker build --build-arg TORCH_INDEX=… --tag synfer .
# One command in it:             docker run --rm --volume "$PWD":/data synfer fit --config configs/data/drawn.yaml …
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /opt/synfer

# torch first, from PyTorch's index of wheels without CUDA (docs/installation.md says where its address stands): the
# ordinary one gives Linux several gigabytes of it. What torch needs beside itself comes with the rest: that index has
# not every version of it. Without the argument the ordinary wheel is taken.
ARG TORCH_INDEX=""
COPY constraints.txt ./
RUN if [ -n "$TORCH_INDEX" ]; then \
      pip install --no-deps --index-url "$TORCH_INDEX" --constraint constraints.txt torch torchvision; \
    fi

COPY pyproject.toml README.md LICENSE *.py ./
COPY synfer ./synfer
COPY datamodules ./datamodules
COPY lightning_modules ./lightning_modules
COPY callbacks ./callbacks
COPY experiments ./experiments
COPY configs ./configs
COPY demo ./demo
RUN pip install --constraint constraints.txt --editable .

# Not as root: what it writes into a mounted folder belongs to whoever gives --user.
RUN useradd --create-home synfer && mkdir /data && chown synfer /data
USER synfer
WORKDIR /data

ENTRYPOINT ["python", "/opt/synfer/train.py"]
CMD ["--help"]
