"""`mesh demo`: the main job from manifest to traced request, and the two small programs its pods run.

`web` and `load` run inside pods and import the standard library only, so that a pod starts in tens of milliseconds.
"""
