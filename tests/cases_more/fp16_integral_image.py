# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_integral_image', tier='wide', verdict='FAIL', culprit_op=['cumsum', 'sub', 'slice_by_index'],
 source_url='https://github.com/apple/coremltools/issues/2729',
 expect='box sums from an integral image are small differences of large sums')
class M(nn.Module):
    def forward(self, x):
        s = torch.cumsum(x, -1)
        return s[:, 8:] - s[:, :-8]
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.rand(1, 2048) + 1.0,)
