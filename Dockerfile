# syntax=docker/dockerfile:1
# One image for every process of ours: docker run IMAGE worker, sink, notify, doctor ...
#   docker build -t stepstream .
#   docker build -t stepstream-embedded --build-arg EXTRAS=worker,sink,notify,embedded .    (adds Kafka and ClickHouse of `up`)
FROM python:3.11-slim AS build
ARG EXTRAS=worker,sink,notify
WORKDIR /src
RUN python -m venv /opt/stepstream
COPY pyproject.toml constraints.txt README.md CHANGELOG.md LICENSE ./
COPY stepstream ./stepstream
COPY schemas ./schemas
COPY evals ./evals
COPY producers ./producers
COPY stream ./stream
COPY sinks ./sinks
COPY console ./console
COPY web_build ./web_build
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/stepstream/bin/pip install --disable-pip-version-check -c constraints.txt ".[$EXTRAS]"

FROM python:3.11-slim
RUN useradd --uid 10001 --create-home --home-dir /var/lib/stepstream stepstream && mkdir /data && chown stepstream /data
COPY --from=build /opt/stepstream /opt/stepstream
ENV PATH=/opt/stepstream/bin:$PATH PYTHONUNBUFFERED=1
USER stepstream
WORKDIR /var/lib/stepstream
ENTRYPOINT ["stepstream"]
CMD ["--help"]
