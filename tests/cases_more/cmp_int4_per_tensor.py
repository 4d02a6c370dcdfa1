# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='cmp_int4_per_tensor', verdict='FAIL', culprit_op='0',
 source_url='https://github.com/apple/coremltools',
 expect='four bits with one scale', compress={'method': 'linear', 'mode': 'linear_symmetric', 'dtype': 'int4', 'granularity': 'per_tensor', 'weight_threshold': 64}, target='iOS18')
def build():
    torch.manual_seed(0); m = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16)).eval()
    with torch.no_grad(): m[0].weight[:, 0] *= 30
    return m
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 64),)
