# synfer on processors alone:    docker build --tag synfer .
# One command in it:             docker run --rm --volume "$PWD":/data synfer fit --config configs/data/drawn.yaml …
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /opt/synfer

# torch first: the ordinary index gives Linux the build with CUDA, of several gigabytes. What it needs beside itself
# comes with the rest: that index has not every version of it.
COPY constraints.txt ./
RUN pip install --no-deps --index-url https://download.pytorch.org/whl/cpu --constraint constraints.txt torch torchvision

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
