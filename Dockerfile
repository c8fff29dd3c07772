# One image for every process (worker, control worker, beat, Flower, simulator); docker-compose.yml says which runs what.
# Debian 13 for a current OpenSSL; bytes go through the one that pycurl brings along.

FROM python:3.13-slim-trixie AS build
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
# The virtualenv has no pip: nothing installs anything in the image that runs.
RUN python -m venv --without-pip /opt/archiver \
    && pip --python /opt/archiver install --no-cache-dir --require-hashes --only-binary :all: -r requirements.lock
RUN pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY archiver archiver
COPY storage_backends storage_backends
COPY tasks tasks
COPY worker worker
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/archiver install --no-cache-dir --no-deps --no-index /wheels/*.whl

FROM python:3.13-slim-trixie
RUN groupadd --gid 10001 archiver \
    && useradd --uid 10001 --gid archiver --no-create-home --home-dir /srv/archiver --shell /usr/sbin/nologin archiver \
    && install -d -o archiver -g archiver /srv/archiver /srv/archiver/archive
COPY --from=build /opt/archiver /opt/archiver
# SIGQUIT instead of SIGTERM: running tasks are requeued within the grace period, not waited for (they may take hours).
ENV PATH=/opt/archiver/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    REMAP_SIGTERM=SIGQUIT
WORKDIR /srv/archiver
USER 10001:10001
CMD ["archiver", "--help"]
