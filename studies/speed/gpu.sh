#!/usr/bin/env bash
# What only a GPU can show, in parts that are meant for eight minutes each, the most telling first.
#
#   studies/speed/gpu.sh OUT PART…     parts: tests step sampling cifar10 paper
#
# OUT gets small CSV, JSON and text files. A part that was cut off goes on where it was, as long as
# runs/ is there; a file that is there is not made again. In the environment:
#   PYTHON  the Python to use (python3)
#   IMAGES  a folder of images, one folder a class, in place of torchvision's CIFAR-10
#   ARMS    of the parts cifar10 and paper, in place of all
#   BATCHES of the parts step and sampling ("512 128"); ROUNDS of each side (3)
#   MODES, RECIPES  of the part step ("off inductor", "eager compiled"; "tuned" takes minutes more)
#   SMALL   1: tiny sizes on a CPU, to rehearse it
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:?give the folder for the results}
shift
mkdir -p "$out"
python=${PYTHON:-python3}
hpo() { "$python" -m impon_hpo "$@"; }
bench() { "$python" studies/speed/bench.py "$@"; }

if [[ ${SMALL:-} ]]; then
  size=(--width 2 --side 8 --rows 600 --device cpu --rounds 1)
  batches=(64)
  workers=1
  modes=(off)
  run=(--set subset=500 --set width=2 --set image_size=8 --set epochs=3 --set device=cpu)
  trials=3
else
  size=(--width 64 --side 32 --rows 50000 --device cuda --rounds "${ROUNDS:-3}")
  read -ra batches <<<"${BATCHES:-512 128}"
  workers=8
  modes=(graph inductor)
  run=(--set device=cuda)
  trials=30
fi
if [[ ${IMAGES:-} ]]; then
  run+=(--set dataset=folder --set "data_dir=$IMAGES")
fi

# A result is written whole or not at all.
keep() {
  local file=$out/$1
  shift
  [[ -s $file ]] && return 0
  "$@" >"$file.part" && mv "$file.part" "$file"
}

tests() {
  keep tests.txt "$python" -m pytest -q -p no:benchmark -p no:cacheprovider -n "$workers" -m gpu \
    tests/sampling tests/training
}

step() {
  local tried=() recipes=() batch mode recipe
  for mode in ${MODES:-off inductor}; do tried+=(--try "compile=$mode"); done
  for recipe in ${RECIPES:-eager compiled}; do recipes+=(--recipe "$recipe"); done
  for batch in "${batches[@]}"; do
    keep "step-$batch.json" bench step "${size[@]}" --batch-size "$batch" \
      --loader-workers "$workers" "${tried[@]}" "${recipes[@]}" --format json
  done
}

sampling() {
  local batch mode
  for batch in "${batches[@]}"; do
    for mode in "${modes[@]}"; do
      keep "sampling-$batch-$mode.json" bench sampling "${size[@]}" --batch-size "$batch" \
        --sampler uniform --sampler impon --sampler impon-paced --sampler impon-memory \
        --compile "$mode" --format json
    done
  done
}

cifar10() {
  local arm begun
  for arm in ${ARMS:-uniform impon memory paced}; do
    begun=$SECONDS
    keep "cifar10-$arm.json" hpo tune studies/cifar10 --arm "$arm" --trials "$trials" \
      "${run[@]}" --format json
    echo "$arm,$((SECONDS - begun))" >>"$out/cifar10-seconds.csv"
  done
  cp runs/cifar10/trials.csv "$out/cifar10-trials.csv"
  cp runs/cifar10/epochs.csv "$out/cifar10-epochs.csv"
}

paper() {
  local arms=() arm
  for arm in ${ARMS:-uniform impon selective-backprop adam p-sgd c-sgd}; do arms+=(--arm "$arm"); done
  hpo compare-samplers studies/paper "${run[@]}" "${arms[@]}" --seeds 1 --workers "${WORKERS:-2}" \
    --set space.lr.choices='[0.001, 0.1]' --format json >"$out/paper.json"
  cp runs/paper/samplers/epochs.csv "$out/paper-epochs.csv"
  cp runs/paper/samplers/table.csv "$out/paper-table.csv"
}

for part in "$@"; do
  case $part in
    tests | step | sampling | cifar10 | paper) ;;
    *) echo "no part '$part'" >&2 && exit 2 ;;
  esac
  echo "== $part" >&2
  begun=$SECONDS
  "$part" || echo "part $part ended with $?" >&2
  echo "== $part took $((SECONDS - begun)) s" >&2
done
